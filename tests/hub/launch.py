"""`tensorsurgeon` as a process that does not wait long between two tries of a request."""

from tensorsurgeon.cli import main
from tensorsurgeon.hub import requests

if __name__ == "__main__":
    requests.PAUSE = 0.02
    main()
