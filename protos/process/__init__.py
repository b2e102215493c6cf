"""The shell that every service process has: settings, logs, server."""
