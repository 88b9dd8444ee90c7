"""``python -m zipbatch`` is the ``zipbatch`` command."""

from zipbatch.cli import main

if __name__ == "__main__":
    main()
