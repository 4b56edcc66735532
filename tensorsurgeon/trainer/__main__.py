"""`torchrun … -m tensorsurgeon.trainer run.yaml`: the same command on every rank."""

from tensorsurgeon.trainer.commands import main

if __name__ == "__main__":
    main()
