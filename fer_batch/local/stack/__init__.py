"""PostgreSQL, an S3 server and Airflow from wheels, for the demo, for evaluation and for tests.

`Stack` starts and stops them together; each can also be used alone. Nothing else of fer-batch
depends on this package: with settings that name other servers, the rest works without it.
"""

from __future__ import annotations

from fer_batch.local.stack.files import StackError, get_default_stack_dir, get_demo_stack_dir
from fer_batch.local.stack.stack import ServerStatus, Stack

__all__ = ["ServerStatus", "Stack", "StackError", "get_default_stack_dir", "get_demo_stack_dir"]
