"""What the HTTP door says of itself: its release and its OpenAPI document."""
