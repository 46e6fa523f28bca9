"""Which face comes next, whatever a rater does: label, go back, stop and continue."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fer_batch.audit.labeling import Label
from fer_batch.audit.page.session import LabelingSession
from tests.support.labeling import DrawnPictures, LabelsInMemory, build_faces

FACES = 4
ACTIONS = st.lists(st.sampled_from(["happy", "sad", "back", "back", "restart"]), max_size=25)
HIDDEN = st.sets(st.integers(1, FACES))


class QuickPictures(DrawnPictures):
    """Pictures without content."""

    def read(self, face):
        return self.find_obstacle(face) or b"picture"


def open_session(labels: LabelsInMemory, hidden: set[int]) -> LabelingSession:
    return LabelingSession(labels, QuickPictures(dict.fromkeys(hidden, "gone")), "audit")


@given(actions=ACTIONS, hidden=HIDDEN)
def test_every_face_is_labeled_once_and_back_takes_the_last_label_back(
    actions: list[str], hidden: set[int]
) -> None:
    labels = LabelsInMemory(build_faces(FACES))
    session = open_session(labels, hidden)
    expected: dict[int, str] = {}
    given_now: list[int] = []  # since the last restart
    for action in actions:
        state = session.describe()
        number = state["number"]
        if action == "restart":
            session, given_now = open_session(labels, hidden), []
            state = session.describe()
        elif action == "back":
            state = session.go_back()
            if given_now:
                assert state["number"] == given_now[-1]
                del expected[given_now.pop()]
            elif state["number"] != number:  # a label of an earlier session
                del expected[state["number"]]
        elif number is not None:
            session.read(number)
            state = session.save(number, Label(action))
            expected[number] = action
            given_now.append(number)
        assert labels.labels == expected
        assert (state["labeled"], state["total"]) == (len(expected), FACES)
        # A face is shown as long as one is left, and none that is labeled or hidden.
        left = set(range(1, FACES + 1)) - set(expected) - hidden
        assert (state["number"] in left) if left else (state["number"] is None)
        assert state["can_go_back"] or not expected or state["number"] is not None


def test_a_session_continues_after_the_last_label() -> None:
    faces = build_faces(6)
    order = [face.number for face in faces]
    labels = LabelsInMemory(faces, dict.fromkeys(order[:3], Label.SAD))
    session = open_session(labels, set())
    assert (session.describe()["number"], session.describe()["position"]) == (order[3], 4)
    assert session.go_back()["number"] == order[2]
    assert session.describe()["next"] == order[3]


def test_back_after_a_face_that_was_skipped_before_takes_its_label_back() -> None:
    faces = build_faces(4)
    first, *others = (face.number for face in faces)
    labels = LabelsInMemory(faces, dict.fromkeys(others, Label.SAD))  # the first was hidden then
    session = open_session(labels, set())
    assert session.describe()["number"] == first
    session.read(first)
    session.save(first, Label.HAPPY)
    assert session.go_back()["number"] == first
