# SPDX-License-Identifier: Apache-2.0
"""Forecasts that need no network: what a trained model has to beat.

`fit_baseline` builds any of `config.settings.BASELINES`. Each is fitted on frames of training windows
alone; the one exception is the paper's climatology, which says so in its label.
"""

from collections.abc import Callable

from isohypse.config.assessment import RidgeVar
from isohypse.config.settings import BASELINES
from isohypse.errors import ConfigurationError
from isohypse.evaluation.baselines.damped_persistence import fit_damped_persistence
from isohypse.evaluation.baselines.ridge_var import fit_ridge_var
from isohypse.evaluation.baselines.unfitted import ClimatologyForecast, EvaluationMean, Persistence
from isohypse.evaluation.cases import Cases
from isohypse.forecasting import Forecaster

Fit = Callable[[Cases, str, RidgeVar | None], Forecaster]


def fit_baseline(name: str, cases: Cases, protocol: str, ridge_var: RidgeVar | None) -> Forecaster:
    """The baseline `name` for the task of `cases`; only `ridge_var` looks at its section.

    Raises ConfigurationError for an unknown name.
    """
    if name not in FITS:
        raise ConfigurationError(f"baseline {name!r} is unknown; there are {', '.join(BASELINES)}")
    return FITS[name](cases, protocol, ridge_var)


def _persistence(cases: Cases, protocol: str, ridge_var: RidgeVar | None) -> Forecaster:
    return Persistence(cases.scored.t_in, cases.scored.t_out)


def _climatology(cases: Cases, protocol: str, ridge_var: RidgeVar | None) -> Forecaster:
    t_in, t_out = cases.scored.t_in, cases.scored.t_out
    if protocol == "paper":
        return EvaluationMean(t_in, t_out, cases.evaluation_mean)
    return ClimatologyForecast(t_in, t_out, cases.climatology)


def _damped_persistence(cases: Cases, protocol: str, ridge_var: RidgeVar | None) -> Forecaster:
    return fit_damped_persistence(cases)


def _ridge_var(cases: Cases, protocol: str, ridge_var: RidgeVar | None) -> Forecaster:
    return fit_ridge_var(cases, ridge_var.eofs, ridge_var.frames, ridge_var.penalty)


FITS: dict[str, Fit] = {
    "persistence": _persistence,
    "climatology": _climatology,
    "damped_persistence": _damped_persistence,
    "ridge_var": _ridge_var,
}
