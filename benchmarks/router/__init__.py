"""What the router benchmark runs beside the router: an engine that answers at once, a blind forwarder, a load."""
