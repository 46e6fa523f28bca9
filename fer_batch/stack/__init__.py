"""PostgreSQL, an S3 server and Airflow out of wheels, for the demo, for trying and for tests.

`Stack` starts and stops them together; each also stands alone. Nothing else of fer-batch depends
on this package: with settings that lead to other servers, the rest works without it.
"""

from __future__ import annotations

from fer_batch.stack.files import StackError, default_stack_dir
from fer_batch.stack.stack import ServerStatus, Stack

__all__ = ["ServerStatus", "Stack", "StackError", "default_stack_dir"]
