"""``python -m elir_mobile.harness``: every file of a bundle measured, see :mod:`elir_mobile.cli.measure`."""

from elir_mobile.cli.measure import main
from elir_mobile.cli.options import alone

if __name__ == "__main__":
    alone(main)()
