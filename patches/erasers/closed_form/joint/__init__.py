"""All concepts of a request in one least-squares problem, of which every patch is one concept's share."""
