"""The baseline of gradient-boosted trees: a mean, and a variance of what it misses."""

import numpy as np

from ._task import Task

FOLDS = 5


def boosted_trees(task: Task, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the test rows of one split, standardised.

    The variance is fitted to squared residuals out of fold: those of rows that the
    trees were grown on say nothing.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.model_selection import cross_val_predict

    x, y = np.asarray(task.x[index]), np.asarray(task.y[index])[:, 0]
    x_test = np.asarray(task.x_test[index])
    trees = HistGradientBoostingRegressor(
        learning_rate=0.05, max_iter=400, min_samples_leaf=5, random_state=0
    )
    residual = y - cross_val_predict(trees, x, y, cv=FOLDS)
    noise = HistGradientBoostingRegressor(
        loss="gamma",
        learning_rate=0.05,
        max_iter=50,
        min_samples_leaf=20,
        random_state=0,
    )
    noise.fit(x, np.maximum(residual**2, 1e-6))
    mean = trees.fit(x, y).predict(x_test)
    return mean[:, None], np.sqrt(noise.predict(x_test))[:, None]
