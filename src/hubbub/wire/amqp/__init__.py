"""AMQP 1.0, both sides of it, without I/O: bytes in, events out, and nothing of ours imported.

    types           values to bytes and back                    (specification part 1)
    message         the sections of a message as byte ranges    (3.2)
    performatives   frames, termini, states, errors as classes  (2.7, 2.8, 3.4, 3.5, 4.5, 5.3)
    hot             quick ways for transfer, disposition, flow
    frames, sasl    the stream cut into frames; who may come in (2.3, 5.3)
    connection, session, link                                   (2.4, 2.5, 2.6)
    handler         what the owner is told, and the limits

A server makes one `connection.Connection(handler, container_id=...)` per socket and answers `handler.attach`;
a client makes `Connection.client(...)`, then `begin()`, then `session.sender(...)` or `.receiver(...)`.
"""
