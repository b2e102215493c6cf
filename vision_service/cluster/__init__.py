"""The tier's application on Ray Serve, and its life on a cluster that others use, too."""
