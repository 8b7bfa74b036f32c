import json

import pytest

from prm_kit.arrow import annotations_batch, solutions_batch
from prm_kit.errors import InputError, UsageError
from prm_kit.files import json_text
from prm_kit.records import Annotation, Rater, Solution, StepLabel, annotation_text, step_hash
from prm_kit.snapshot import Snapshot, SnapshotWriter

ALICE = Rater("human", "alice")


def solution(n=0, **fields):
    return Solution.from_steps(f"What is {n} + 1?", [f"{n} + 1 = {n + 1}.", "Ça va: 好."], source="made", **fields)


def write(path, *solutions, values=(1, -1)):
    with SnapshotWriter(path, name="made", format="test", options={"separator": "\n\n"}) as writer:
        for each in solutions:
            writer.add(each, [Annotation.of(each, ALICE, list(values))])
        writer.count(rows=len(solutions))
    return writer.manifest


def test_what_went_in_comes_back(tmp_path):
    one = solution(1, final_answer="2", is_correct=True, generator="g", licence="MIT", meta={"a": [1, {"b": None}]})
    two = solution(2)
    write(tmp_path / "s", one, two)
    assert list(Snapshot.open(tmp_path / "s", verify=True).iter_solutions()) == [one, two]


def test_the_manifest_counts_and_names_what_was_made(tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text("{}\n")
    with SnapshotWriter(tmp_path / "s", name="made", format="test") as writer:
        writer.add_input(source)
        writer.add(solution(1, licence="MIT"), [Annotation.of(solution(1), ALICE, [1, None])])
        writer.add(solution(2))
        writer.reject(source, 3, "labels: 2 labels for 3 steps", '{"raw": "\ud800"}')
        writer.reject(source, 4, "labels: 4 labels for 1 steps", b"\xff")
        writer.count(rows=4)
    manifest = Snapshot.open(tmp_path / "s").manifest
    assert manifest == writer.manifest
    assert manifest.counts["solutions"] == 2
    assert manifest.counts["rows"] == 4
    assert manifest.counts["steps"] == 4
    assert manifest.labels == {"-1": 0, "0": 0, "1": 1, "null": 0}
    assert manifest.rejects == {"labels: # labels for # steps": 2}
    assert manifest.licences == {"MIT": 1, "": 1}
    assert manifest.sources == {"made": 2}
    assert manifest.options == {"neutral_policy": "keep"}
    assert manifest.inputs[str(source)].bytes == 3
    rejects = [json.loads(line) for line in (tmp_path / "s/rejects.jsonl").read_text().splitlines()]
    assert [(r["line"], r["raw"]) for r in rejects] == [(3, '{"raw": "\ud800"}'), (4, "\\xff")]


def test_a_solution_twice_is_one_and_counted(tmp_path):
    manifest = write(tmp_path / "s", solution(1), solution(2), solution(1))
    assert manifest.counts["solutions"] == 2
    assert manifest.counts["duplicate_solutions"] == 1
    assert manifest.counts["annotations"] == 2
    assert manifest.counts["duplicate_annotations"] == 1


def test_what_comes_again_in_a_later_batch_is_stored_once(tmp_path):
    known = [solution(n) for n in range(3)]
    first = [Annotation.of(each, ALICE, [1, -1]) for each in known]
    other = [Annotation.of(each, ALICE, [0, -1]) for each in known]
    with SnapshotWriter(tmp_path / "s", name="made", format="test") as writer:
        for annotations in (first, first, [*other, first[0]]):
            writer.add_batches(solutions_batch(known), annotations_batch(annotations))
    assert writer.manifest.counts["solutions"] == 3
    assert writer.manifest.counts["duplicate_solutions"] == 6
    assert writer.manifest.counts["annotations"] == 6
    assert writer.manifest.counts["duplicate_annotations"] == 4


def test_another_pass_over_a_known_solution_is_kept(tmp_path):
    with SnapshotWriter(tmp_path / "s", name="made", format="test") as writer:
        writer.add(solution(1), [Annotation.of(solution(1), ALICE, [1, -1])])
        writer.add(solution(1), [Annotation.of(solution(1), ALICE, [1, 0])])
    assert writer.manifest.counts["solutions"] == 1
    assert writer.manifest.counts["annotations"] == 2


def test_the_directory_appears_only_when_all_of_it_is_there(tmp_path):
    def fail():
        with SnapshotWriter(tmp_path / "s", name="x", format="test") as writer:
            writer.add(solution(1))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_an_old_snapshot_is_replaced_whole_but_nothing_else_is(tmp_path):
    write(tmp_path / "s", solution(1))
    write(tmp_path / "s", solution(2))
    assert list(Snapshot.open(tmp_path / "s").iter_solutions()) == [solution(2)]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="exists and is no snapshot"):
        write(tmp_path / "mine", solution(1))
    assert (tmp_path / "mine/thesis.tex").exists()


@pytest.mark.parametrize("name", ["solutions.parquet", "annotations.parquet", "rejects.jsonl"])
def test_a_truncated_or_changed_snapshot_is_refused_with_the_reason(tmp_path, name):
    with SnapshotWriter(tmp_path / "s", name="x", format="test") as writer:
        writer.add(solution(1))
        writer.reject("f", 1, "bad", "raw")
    file = tmp_path / "s" / name
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    with pytest.raises(InputError, match=f"{name}.*truncated or changed"):
        Snapshot.open(tmp_path / "s")
    file.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    Snapshot.open(tmp_path / "s")
    with pytest.raises(InputError, match=f"{name}.*SHA-256"):
        Snapshot.open(tmp_path / "s", verify=True)
    file.unlink()
    with pytest.raises(InputError, match=f"{name} is missing"):
        Snapshot.open(tmp_path / "s")


def test_another_schema_version_and_a_damaged_manifest_are_refused(tmp_path):
    manifest = write(tmp_path / "s", solution(1)).model_dump()
    file = tmp_path / "s/manifest.json"
    file.write_text(json_text(manifest | {"schema_version": 99}))
    with pytest.raises(InputError, match="schema version 99"):
        Snapshot.open(tmp_path / "s")
    file.write_text(json_text(manifest | {"counts": "many"}))
    with pytest.raises(InputError, match="damaged"):
        Snapshot.open(tmp_path / "s")
    file.write_text("{")
    with pytest.raises(InputError, match="damaged"):
        Snapshot.open(tmp_path / "s")
    with pytest.raises(InputError, match="no snapshot"):
        Snapshot.open(tmp_path)


def test_an_annotation_that_does_not_fit_is_refused(tmp_path):
    one, two = solution(1), solution(2)
    with SnapshotWriter(tmp_path / "s", name="x", format="test") as writer:
        with pytest.raises(InputError, match="is about solution"):
            writer.add(one, [Annotation.of(two, ALICE, [1, 1])])
        with pytest.raises(InputError, match="made for another text"):
            writer.add(one, [Annotation(one.id, ALICE, (StepLabel(0, 1, step_hash("else")),))])
        with pytest.raises(InputError, match="label of step 2, but it has 2"):
            writer.add(one, [Annotation(one.id, ALICE, (StepLabel(2, 1, step_hash("else")),))])


def test_an_annotation_id_depends_on_everything_but_the_step_hashes():
    one = solution(1)
    base = Annotation.of(one, ALICE, [1, None])
    assert "step_hash" not in annotation_text(base)
    others = [
        Annotation.of(one, ALICE, [0, None]),
        Annotation.of(one, ALICE, [None, 1]),
        Annotation.of(one, Rater("simulated", "alice"), [1, None]),
        Annotation.of(one, Rater("human", "alice", "2"), [1, None]),
        Annotation.of(one, ALICE, [1, None], time="2026-01-01T00:00:00Z"),
        Annotation.of(solution(2), ALICE, [1, None]),
        Annotation.of(one, ALICE, [1, None], lead_time=12),
    ]
    assert len({base.id, *(other.id for other in others)}) == 8
    assert Annotation.of(one, ALICE, [1, None], lead_time=12.0).id == others[-1].id


def test_batches_of_other_columns_or_about_unknown_solutions_are_refused(tmp_path):
    solutions = solutions_batch([solution(1)])
    stray = annotations_batch([Annotation.of(solution(2), ALICE, [1, 1])])
    with SnapshotWriter(tmp_path / "s", name="x", format="test") as writer:
        with pytest.raises(InputError, match=f"annotation of solution {solution(2).id}"):
            writer.add_batches(solutions, stray)
        with pytest.raises(InputError, match="or of other types"):
            writer.add_batches(stray, stray)
    assert writer.manifest.counts["annotations"] == 0


def test_columns_can_be_read_without_making_records(tmp_path):
    write(tmp_path / "s", solution(1), solution(2), values=(0, None))
    snapshot = Snapshot.open(tmp_path / "s")
    assert snapshot.solutions().select("problem").collect().rows() == [("What is 1 + 1?",), ("What is 2 + 1?",)]
    labels = snapshot.annotations().explode("labels").unnest("labels").select("step", "value").collect()
    assert labels.rows() == [(0, 0), (0, 0)]


def test_a_parquet_file_damaged_in_place_is_refused_by_name(tmp_path):
    write(tmp_path / "s", solution(1))
    file = tmp_path / "s" / "solutions.parquet"
    file.write_bytes(file.read_bytes()[:-8] + bytes(8))
    with pytest.raises(InputError, match=r"solutions\.parquet: its content is not what was written"):
        Snapshot.open(tmp_path / "s")
