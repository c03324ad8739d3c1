"""``python -m elir_mobile.train``, also by way of torchrun: see :mod:`elir_mobile.cli.train`."""

from elir_mobile.cli.train import app

if __name__ == "__main__":
    app()
