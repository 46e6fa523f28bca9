"""`python -m fer_batch` is the `fer-batch` command."""

from fer_batch.cli import main

if __name__ == "__main__":
    main()
