"""`python -m customcnn`: the command line."""

from customcnn.cli import main

if __name__ == "__main__":
    main()
