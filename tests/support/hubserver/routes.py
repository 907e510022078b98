"""The two routing tables: the Hub itself, and the storage origin that must never see a Hub token."""

from support.hubserver.wire import Router

HUB = Router()
STORAGE = Router()
