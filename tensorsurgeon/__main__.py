"""`python -m tensorsurgeon` is the command line."""

from tensorsurgeon.cli import main

if __name__ == "__main__":
    main()
