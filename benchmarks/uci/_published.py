"""Published results on these sets, each with its protocol. They are not all alike.

Order of the columns: boston, concrete, energy, kin8nm, naval, power, protein, wine,
yacht. `None` where the source gives nothing.
"""

SETS = (
    "bostonHousing",
    "concrete",
    "energy",
    "kin8nm",
    "naval-propulsion-plant",
    "power-plant",
    "protein-tertiary-structure",
    "wine-quality-red",
    "yacht",
)

PROTOCOLS = {
    "P1": "the standard splits, 40 epochs, standard error over splits",
    "P2": "the standard splits, 4,000 epochs, settings by grid on each split",
    "P3": "other random 90/10 splits, heteroscedastic, to convergence",
    "P4": "the standard splits, 40 epochs, five networks, heteroscedastic",
    "P5": "Edward2's own script and splits",
    "?": "as other papers cite it; the protocol could not be checked",
}

LOG_LIKELIHOOD: dict[str, tuple[str, tuple[float | None, ...]]] = {
    "PBP (2015)": ("P1", (-2.57, -3.16, -2.04, 0.90, 3.73, -2.84, -2.97, -0.97, -1.63)),
    "MC dropout, converged (2018)": (
        "P2",
        (-2.402, -2.937, -1.212, 1.136, 4.450, -2.808, -2.871, -0.928, -1.250),
    ),
    "Deep ensembles (2017)": (
        "P4",
        (-2.41, -3.06, -1.38, 1.20, 5.63, -2.79, -2.83, -0.94, -1.18),
    ),
    "DVI, heteroscedastic (2019)": (
        "P3",
        (-2.41, -3.06, -1.01, 1.13, 6.29, -2.80, -2.85, -0.90, -0.47),
    ),
    "Ensemble of 10, Edward2": (
        "P5",
        (-6.11, -3.20, -0.61, 1.17, 5.17, -3.18, -3.12, -0.97, -0.73),
    ),
    "Concrete dropout": (
        "?",
        (-2.72, -3.51, -2.30, 0.65, 5.87, -2.75, -2.81, -1.70, -1.75),
    ),
    "Deep evidential (2020)": (
        "?",
        (-2.35, -3.01, -1.39, 1.24, 5.73, -2.81, -2.63, -0.89, -1.03),
    ),
    "NGBoost (trees, 2020)": (
        "?",
        (-2.43, -3.04, -0.60, 0.49, 5.34, -2.79, -2.81, -0.91, -0.20),
    ),
}

RMSE: dict[str, tuple[str, tuple[float | None, ...]]] = {
    "PBP (2015)": ("P1", (3.01, 5.67, 1.80, 0.10, 0.01, 4.12, 4.73, 0.64, 1.02)),
    "MC dropout, converged (2018)": (
        "P2",
        (2.904, 4.826, 0.539, 0.0789, 0.00074, 4.014, 4.274, 0.622, 0.666),
    ),
    "Deep ensembles (2017)": (
        "P4",
        (3.28, 6.03, 2.09, 0.09, 0.00, 4.11, 4.71, 0.64, 1.58),
    ),
    "Concrete dropout": (
        "?",
        (2.65, 4.46, 0.46, 0.07, 0.00, 3.70, 3.85, 0.62, 0.57),
    ),
    "Deep evidential (2020)": (
        "?",
        (3.06, 5.85, 2.06, 0.09, 0.00, 4.23, 4.64, 0.61, 1.57),
    ),
    "NGBoost (trees, 2020)": (
        "?",
        (2.94, 5.06, 0.46, 0.16, 0.00, 3.79, 4.33, 0.63, 0.50),
    ),
}
