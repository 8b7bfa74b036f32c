import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prm_kit.arrow import annotation_from, solutions_from
from prm_kit.errors import InputError
from prm_kit.formats.folding import Folded
from prm_kit.formats.format import Judged, Row
from prm_kit.formats.row_files import BadRow, rows_of_file
from prm_kit.formats.step_blocks import read_blocks
from prm_kit.formats.step_columns import MAX_BYTES, MAX_STEPS
from prm_kit.formats.steps import REPEATED, StepsLayout, read_row, write_row

ROW = {
    "id": "made-1",
    "source": "made",
    "license": "MIT",
    "problem": "What is 2 * 3 + 1?",
    "steps": ["2 * 3 = 6.", "Ça fait 6 + 1 = 8.", "好 😀"],
    "labels": [1, -1, None],
    "first_error": 1,
    "final_answer": "8",
    "reference_answer": "7",
    "is_correct": False,
    "meta": {"human": True, "generator": "g", "split": "dev"},
}


PLAIN = StepsLayout()


def line(**changes):
    return json.dumps({key: value for key, value in (ROW | changes).items() if value is not ...})


def slow(path, layout):
    """The reference: row by row."""
    items, rejects, seen, notes = [], [], {}, {}
    for row in rows_of_file(path):
        try:
            if isinstance(row, BadRow):
                raise InputError(row.reason)
            reading = read_row(row, layout)
        except InputError as error:
            rejects.append((row.number, str(error).split(": line")[0]))  # json counts the newline that one reader keeps
            continue
        items += [(item.solution, *item.annotations) for item in reading.items]
        for total, more in ((seen, reading.seen), (notes, reading.notes)):
            for key, count in more.items():
                total[key] = total.get(key, 0) + count
    return items, rejects, seen, notes


def fast(path, layout, block_bytes):
    items, rejects, seen, notes, rows = [], [], {}, {}, 0
    for block in read_blocks(path, layout, block_bytes):
        annotations = block.annotations.to_pylist()
        for solution in solutions_from(block.solutions):
            mine = []
            if annotations and annotations[0]["solution_id"] == solution.id:
                row = annotations.pop(0)
                mine = [annotation_from(row, solution)]
                assert mine[0].id == row["id"]
            items.append((solution, *mine))
        assert not annotations
        rejects += [(bad.number, bad.reason.split(": line")[0]) for bad in block.rejects]
        rows += block.rows
        for total, more in ((seen, block.seen), (notes, block.notes)):
            for key, count in more.items():
                total[key] = total.get(key, 0) + count
    assert rows == len(items) + len(rejects)
    return items, rejects, seen, notes


def both(tmp_path, data, layout=PLAIN, block_bytes=1 << 20):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass"))
    expected = slow(path, layout)
    assert fast(path, layout, block_bytes) == expected
    return expected


def test_a_row_becomes_a_solution_and_an_annotation_by_whoever_labelled(tmp_path):
    [(solution, annotation)], rejects, seen, _ = both(tmp_path, line() + "\n")
    assert solution.problem == ROW["problem"]
    assert solution.steps == tuple(ROW["steps"])
    # "2 * 3 = 6." has 10 characters, the separator 2, "Ça fait 6 + 1 = 8." 18, "好 😀" 3
    assert solution.spans == ((0, 10), (12, 30), (32, 35))
    assert (solution.source, solution.licence, solution.generator, solution.is_correct) == ("made", "MIT", "g", False)
    assert solution.meta == {"row_id": "made-1", "human": True, "generator": "g", "split": "dev"}
    assert (annotation.rater.kind, annotation.rater.name) == ("human", "made")
    assert annotation.values(3) == (1, -1, None)
    assert annotation.first_error == 1
    assert rejects == []
    assert seen == {"1": 1, "-1": 1, "null": 1}


def test_rows_without_a_label_give_no_annotation(tmp_path):
    items, _, _, _ = both(tmp_path, "\n".join([line(labels=[None] * 3, first_error=None), line(labels=...,
        first_error=...), line(problem="another")]))  # fmt: skip
    assert [len(item) for item in items] == [1, 1, 2]


def test_labels_that_a_branch_repeats_from_its_trunk_are_left_out_and_counted(tmp_path):
    branch = line(labels=[1, 0, -1], first_error=2, meta={"parent": "made-0", "branch_step": 2})
    [(_, annotation)], _, _, notes = both(tmp_path, branch)
    assert annotation.values(3) == (None, None, -1)
    assert notes == {REPEATED: 2}
    [(_, annotation)], _, _, notes = both(tmp_path, branch, StepsLayout(keep_repeated=True))
    assert annotation.values(3) == (1, 0, -1)
    assert notes == {}


def test_an_error_before_the_branch_stays_so_that_the_first_error_does(tmp_path):
    branch = line(labels=[-1, 1, -1], first_error=0, meta={"branch_step": 2})
    [(_, annotation)], _, _, notes = both(tmp_path, branch)
    assert annotation.values(3) == (-1, None, -1)
    assert notes == {REPEATED: 1}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"steps": []}, "steps: empty"),
        ({"steps": ["a", " \u2003", "c"]}, "step 1 is empty"),
        ({"steps": ["a", None, "c"]}, "steps[1]: missing"),
        ({"steps": "a"}, "steps: str is not a list"),
        ({"problem": ...}, "problem: missing"),
        ({"problem": 3}, "problem: int is not text"),
        ({"problem": "a\x00b"}, "problem holds a NUL character at offset 1"),
        ({"steps": ["a", "b\x00", "c"]}, "completion holds a NUL character at offset 4"),
        ({"problem": "a\ud800"}, "problem holds a lone surrogate at offset 1"),
        ({"final_answer": "\udc00"}, "final_answer holds a lone surrogate at offset 0"),
        ({"labels": [1, 1]}, "labels: 2 labels for 3 steps"),
        ({"labels": [1, 2, 1], "first_error": None}, "labels[1]: 2 is not -1, 0, 1 or null"),
        ({"labels": [1, 0.7, 1]}, "labels[1]: 0.7 is not -1, 0, 1 or null"),
        ({"labels": [1, 1.0, 1]}, "labels[1]: 1.0 is not -1, 0, 1 or null"),
        ({"labels": [1, True, 1]}, "labels[1]: True is not -1, 0, 1 or null"),
        ({"labels": [1, "1", 1]}, "labels[1]: '1' is not -1, 0, 1 or null"),
        ({"first_error": 2}, "first_error: 2, but the first label -1 is at 1"),
        ({"first_error": None}, "first_error: None, but the first label -1 is at 1"),
        ({"first_error": -1, "labels": [1, 1, 1]}, "first_error: -1 is not a step index or null"),
        ({"is_correct": 1}, "is_correct: 1 is not true, false or null"),
        ({"meta": [1]}, "meta: list is not an object"),
        ({"meta": {"human": "yes"}}, "meta.human: 'yes' is not true or false"),
        ({"meta": {"branch_step": 3}}, "meta.branch_step: 3, but there are 3 steps"),
        ({"meta": {"branch_step": -1}}, "meta.branch_step: -1 is not a step index"),
        ({"meta": {"x": "\ud800"}}, "meta cannot be stored as JSON"),
        ({"meta": {"generator": "a\x00"}}, "generator holds a NUL character at offset 1"),
        ({"meta": {"branch_step": 2**40}}, "meta.branch_step: 1099511627776, but there are 3 steps"),
        ({"meta": {"row_id": "made-2"}}, "row_id: stands beside meta and in it"),
    ],
)
def test_a_malformed_row_is_refused_with_its_line_and_the_others_are_not(tmp_path, changes, reason):
    items, rejects, _, _ = both(tmp_path, f"{line()}\n\n{line(**changes)}\n{line(id='made-2')}\n")
    assert len(items) == 2
    ((number, found),) = rejects
    assert number == 3
    assert found.startswith(reason)


def test_a_number_beyond_all_floats_in_meta_is_refused_before_it_is_stored(tmp_path):
    items, [(number, reason)], _, _ = both(
        tmp_path, line(meta={"x": 1}).replace('"x": 1', '"x": 1e999') + "\n" + line()
    )
    assert (len(items), number) == (1, 1)
    assert reason.startswith("meta cannot be stored as JSON")


def test_text_begun_on_one_line_never_ends_on_another(tmp_path):
    row = '{"problem":"p","steps":["a"],"labels":[1],"id":"i"'
    two_in_one = row + "}" + row + ',"meta":{}}'
    one_in_two = '{"problem":"abc,"meta":{}}\n{ x","steps":["a"],"labels":[1],"id":"k","meta":{}}'
    items, rejects, _, _ = both(tmp_path, f"{two_in_one}\n{one_in_two}\n")
    assert items == []
    assert [number for number, _ in rejects] == [1, 2, 3]


def test_a_first_line_that_is_only_a_byte_order_mark_is_blank(tmp_path):
    items, rejects, _, _ = both(tmp_path, "\ufeff\n" + line())
    assert (len(items), rejects) == (1, [])


def test_an_empty_source_is_named_after_the_format(tmp_path):
    [(solution, annotation)], _, _, _ = both(tmp_path, line(source=""))
    assert (solution.source, annotation.rater.name) == ("steps", "steps")


@pytest.mark.parametrize(
    "bad", [b"{", b"[1]", b"nonsense", b'{"problem": "\xff"}', line().encode()[:-1], line().encode() + b"x"]
)
def test_a_line_that_is_no_json_is_refused_alone(tmp_path, bad):
    items, rejects, _, _ = both(tmp_path, b"\n".join([line().encode(), bad, line().encode()]))
    assert len(items) == 2
    assert [number for number, _ in rejects] == [2]


def test_unknown_keys_go_to_meta_and_are_counted(tmp_path):
    [(solution, _)], _, _, notes = both(tmp_path, line(difficulty=5))
    assert solution.meta["difficulty"] == 5
    assert notes == {"unknown key 'difficulty', kept in meta": 1}
    _, [(_, reason)], _, _ = both(tmp_path, line(split="train"))
    assert reason == "split: stands beside meta and in it"


def test_the_spelling_of_the_json_does_not_matter(tmp_path):
    rows = [ROW, ROW | {"id": 'a "quoted" \\ id'}, ROW | {"meta": {}}, ROW | {"meta": {"meta": {"meta": 1}}}]
    spellings = [
        "\n".join(json.dumps(row, ensure_ascii=ascii, separators=separators) for row in rows)
        for ascii in (True, False)
        for separators in ((", ", ": "), (",", ":"))
    ]
    spellings.append("\r\n".join(map(json.dumps, rows)) + "\r\n")
    spellings.append("\ufeff" + "\n".join(json.dumps(dict(reversed(row.items()))) for row in rows))
    spellings.append("\n".join(json.dumps({k: v for k, v in row.items() if v is not None}) for row in rows) + "\n\n")
    first, *others = [both(tmp_path, text)[0] for text in spellings]
    assert len(first) == 4
    assert all(other == first for other in others)


def test_where_the_blocks_are_cut_does_not_matter(tmp_path):
    text = "\n".join([line(id=f"made-{i}", problem="p" * i) for i in range(40)] + ["{"])
    expected = both(tmp_path, text)
    for block_bytes in (1, 100, 1000, 5000):
        assert both(tmp_path, text, block_bytes=block_bytes) == expected
    packed = tmp_path / "rows.jsonl.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    assert fast(packed, StepsLayout(), 1000) == expected


def test_a_cut_off_archive_is_refused(tmp_path):
    packed = tmp_path / "rows.jsonl.gz"
    packed.write_bytes(gzip.compress((line() + "\n").encode() * 50)[:-20])
    with pytest.raises(InputError, match="cannot be read"):
        list(read_blocks(packed, StepsLayout()))


text = st.text(alphabet='ab é好😀\n\\"\x00\u2003', max_size=4)
labels = st.sampled_from([-1, 0, 1, None, 1, 1, 2, 0.5])
messy_rows = st.fixed_dictionaries(
    {"problem": text, "steps": st.lists(text, max_size=3), "labels": st.lists(labels, max_size=3)},
    optional={
        "id": text | st.integers(0, 3),
        "source": st.none() | text,
        "license": st.none() | st.just("MIT"),
        "first_error": st.none() | st.integers(-1, 2),
        "final_answer": st.none() | text | st.just(3),
        "is_correct": st.none() | st.booleans(),
        "extra": text,
        "meta": st.none()
        | st.fixed_dictionaries(
            {},
            optional={
                "human": st.booleans() | st.just("x"),
                "generator": st.none() | text,
                "branch_step": st.none() | st.integers(-1, 3),
                "split": text,
                "parent": text,
                "row_id": text,
            },
        ),
    },
)
layouts = st.builds(
    StepsLayout,
    separator=st.sampled_from(["\n\n", "", "好"]),
    keep_repeated=st.booleans(),
    source=st.none() | st.just("mine"),
    licence=st.none() | st.just("CC0"),
    generator=st.none() | st.just("gen"),
    split=st.none() | st.just("train"),
    rater_kind=st.none() | st.just("judge"),
    rater_name=st.none() | st.just("bob"),
)


def tidy(row):
    """Make a messy row agree with itself, so that more than rejects are compared."""
    steps = [step if step.strip() else step + "x" for step in row["steps"]] or ["s"]
    given = [label if label in (-1, 0, 1, None) and label != 0.5 else 1 for label in [*row["labels"], 1, 1, 1]]
    given = given[: len(steps)]
    first = given.index(-1) if -1 in given else None
    return row | {"steps": steps, "labels": given, "first_error": first}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(messy_rows, st.booleans()), max_size=5), layouts, st.booleans())
def test_block_by_block_says_what_row_by_row_says(tmp_path_factory, rows, layout, ascii):
    lines = [json.dumps(tidy(row) if make_tidy else row, ensure_ascii=ascii) for row, make_tidy in rows]
    both(tmp_path_factory.mktemp("rows"), "\n".join(lines), layout, block_bytes=400)


def test_the_place_names_a_row_without_id():
    reading = read_row(Row({"problem": "p", "steps": ["s"]}, "/a/b.jsonl", 7), StepsLayout())
    assert reading.items[0].solution.meta == {"row_id": "b.jsonl:7"}


def test_a_solution_of_very_many_steps_is_read_like_any_other(tmp_path):
    n = MAX_STEPS + 1
    many = line(steps=[f"step {i}" for i in range(n)], labels=[0] * (n - 1) + [-1], first_error=n - 1)
    items, _, _, _ = both(tmp_path, f"{many}\n{line()}")
    assert [len(solution.spans) for solution, _ in items] == [n, 3]
    assert items[0][1].first_error == n - 1


def test_written_rows_read_back_as_the_same_records(tmp_path):
    [(solution, annotation)], _, _, _ = both(tmp_path, line())
    judged = Judged(solution, annotation, Folded(solution, annotation.values(3)))
    again = read_row(Row(write_row([judged], PLAIN), "x", 1), PLAIN).items[0]
    assert again.solution == solution
    assert again.annotations == (annotation,)


def test_a_very_long_solution_is_read_like_any_other(tmp_path):
    long = line(steps=["x" * MAX_BYTES, "y"], labels=[1, 0], first_error=None)
    items, _, _, _ = both(tmp_path, f"{long}\n{line()}")
    assert [solution.spans[-1][1] for solution, _ in items] == [MAX_BYTES + 3, 35]


def test_meta_is_what_follows_the_last_key_of_the_row(tmp_path):
    rows = [
        line(meta={"a": {"meta": 1}}),
        line(problem='", "meta": {"'),
        line()[:-1] + ', "meta": {"generator": "twice"}}',
        line(meta={}) + "  ",
        line(meta=...),
    ]
    items, rejects, _, _ = both(tmp_path, "\n".join(rows))
    assert len(items) + len(rejects) == 5
    assert items[0][0].meta["a"] == {"meta": 1}
