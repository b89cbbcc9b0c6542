"""Limits of names follow from what Kubernetes objects are made of them."""

from specs import naming


def test_the_longest_model_name_fits_into_kserves_label() -> None:
    assert len(f"isvc.{'m' * naming.MODEL_LIMIT}-predictor") == naming.LABEL_LIMIT
