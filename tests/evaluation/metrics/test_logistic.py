"""Logistic regression and the area under the curve against scikit-learn."""

import numpy as np
import pytest

from csm.evaluation.metrics.logistic import area_under_roc, fit_logistic


def test_weights_and_area_are_those_of_scikit_learn():
    linear = pytest.importorskip("sklearn.linear_model")
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(0)
    features = generator.normal(size=(200, 4))
    labels = (features @ [1.0, -2.0, 0.0, 0.5] + generator.normal(size=200) > 0).astype(float)
    weights, bias = fit_logistic(features, labels, 2.0)
    other = linear.LogisticRegression(C=0.5, tol=1e-8, max_iter=1000).fit(features, labels)
    assert weights == pytest.approx(other.coef_[0], abs=1e-4)
    assert bias == pytest.approx(other.intercept_[0], abs=1e-4)
    values = features @ weights
    assert area_under_roc(values, labels) == pytest.approx(metrics.roc_auc_score(labels, values))
