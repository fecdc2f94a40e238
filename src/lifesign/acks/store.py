"""SQL of the table `callbacks_seen`."""

from sqlalchemy import Connection, select

from lifesign.clock import EpochMs
from lifesign.db.schema import callbacks_seen
from lifesign.db.sql import insert_new

C = callbacks_seen.c


def answer_given(conn: Connection, callback_id: str, since: EpochMs) -> str | None:
    """What was answered to this callback since `since`."""
    answer: str | None = conn.scalar(select(C.answer).where(C.id == callback_id, C.at > since))
    return answer


def keep_answer(conn: Connection, callback_id: str, answer: str, now: EpochMs) -> None:
    """Answer the same when it comes again."""
    insert_new(conn, callbacks_seen, [{"id": callback_id, "answer": answer, "at": now}], unique=["id"])
