"""What pyproject.toml cannot say: configs/ travels in the wheel, as the folder retrieval_jax/_configs."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["retrieval_jax*"]), "retrieval_jax._configs"],
    package_dir={"retrieval_jax._configs": "configs"},
)
