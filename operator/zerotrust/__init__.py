"""Zero trust on Kubernetes from one source of intent."""

__version__ = "0.1.0"
