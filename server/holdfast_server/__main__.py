"""`python -m holdfast_server` is `holdfast serve`."""

from holdfast_server.cli import serve

if __name__ == "__main__":
    serve()
