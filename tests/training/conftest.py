"""Fixtures of the small trainings."""

from tests.support.small_training import small_catalogue  # noqa: F401
