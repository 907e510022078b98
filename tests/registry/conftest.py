from support.registries.postgres import postgres_cluster, postgres_url  # noqa: F401 - fixtures
from support.registries.registry_fixtures import folder, full, kind, made, place, registry, templates  # noqa: F401
