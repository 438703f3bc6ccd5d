"""The administration client without TLS, for which it has no option."""

from __future__ import annotations

from azure.core.pipeline.transport import RequestsTransport


class Plain(RequestsTransport):
    """Given to the client as its `transport`."""

    def send(self, request, **options):
        request.url = request.url.replace("https://", "http://", 1)
        return super().send(request, **options)
