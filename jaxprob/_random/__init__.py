"""Keys and draws: everything random in the package comes from a key of the caller.

Each key is spent once. The key of step k, of example i and of leaf j is `fold_in` of
the run's, the batch's and the tree's key (`keys`). `streams` names the keys of a run;
`standard_normal` and `signs` draw the noise of variational steps in one pass on a CPU.
"""
