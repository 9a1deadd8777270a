"""dhow's building blocks for Python guests, over the calls of WIT package dhow:runtime.

Everything is imported here, because a compiled guest has no file system to import from later.
"""

from .binding import Answer, Binding
from .configuration import Configuration, Item
from .errors import Conflict, Denied, DhowError, Failed, Invalid, NotFound, Unavailable, Unsupported
from .handlers import BindingEvent, Drop, Due, Event, on_binding, on_job, on_message
from .http import Request, Response, on_request
from .invoke import invoke
from .jobs import Job, Retries, delete_job, get_job, schedule_job
from .lock import Lock
from .pubsub import PubSub
from .secrets import Secrets
from .state import Page, State, StateItem, Transaction
from .step import StepInput, StepOutput, on_step

__all__ = [
    "Answer", "Binding", "BindingEvent", "Configuration", "Conflict", "Denied", "DhowError", "Drop", "Due", "Event",
    "Failed", "Invalid", "Item", "Job", "Lock", "NotFound", "Page", "PubSub", "Request", "Response", "Retries",
    "Secrets", "State", "StateItem", "StepInput", "StepOutput", "Transaction", "Unavailable", "Unsupported", "delete_job", "get_job", "invoke",
    "on_binding", "on_job", "on_message", "on_request", "on_step", "schedule_job",
]
