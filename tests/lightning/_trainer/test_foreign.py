"""What the code of a hook reads."""

from jaxprob.lightning._trainer.foreign import mentions


def test_a_nested_function_may_read_the_name():
    def step(self, batch, batch_idx):
        def inner():
            return self.other.training_step(batch, batch_idx)

        return inner()

    assert mentions(step, "training_step")
    assert not mentions(step, "validation_step")


def test_a_callable_without_code_may_read_any_name():
    assert mentions(len, "training_step")
