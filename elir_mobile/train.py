"""``python -m elir_mobile.train``, also by way of torchrun: see :mod:`elir_mobile.cli.train`."""

from elir_mobile.cli.options import alone
from elir_mobile.cli.train import main

if __name__ == "__main__":
    alone(main)()
