"""``python -m export``: one exported file, see :mod:`elir_mobile.cli.export`."""

from elir_mobile.cli.export import app

if __name__ == "__main__":
    app()
