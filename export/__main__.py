"""``python -m export``: one exported file, see :mod:`elir_mobile.cli.export`."""

from elir_mobile.cli.export import main
from elir_mobile.cli.options import alone

if __name__ == "__main__":
    alone(main)()
