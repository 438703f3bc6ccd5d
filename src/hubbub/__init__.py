"""Hubbub: the open server for apps written against Azure Event Hubs and Azure Service Bus."""

__version__ = "0.1.0"
