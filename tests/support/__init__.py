"""What the tests share: a real server as a process, a raw HTTP client, a proxy that breaks connections."""
