"""The router: the OpenAI-compatible data plane that classifies, caches, routes, streams and accounts."""
