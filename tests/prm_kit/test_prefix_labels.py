from prm_kit.prefix_labels import with_prefix_labels
from prm_kit.records import Annotation, Labelled, Rater, Solution

HUMAN = Rater("human", "ann")


def pair(steps, values, rater=HUMAN):
    solution = Solution.from_steps("p", steps)
    return Labelled(solution, Annotation.of(solution, rater, values))


def values(rows):
    return [row.annotation.values(len(row.solution.spans)) for row in rows]


def test_a_branch_takes_the_labels_of_its_trunk_up_to_where_it_leaves():
    rows = [pair(["a", "b", "c"], [1, 0, 1]), pair(["a", "b", "x"], [None, None, -1])]
    assert values(with_prefix_labels(rows)) == [(1, 0, 1), (1, 0, -1)]


def test_the_same_step_after_other_steps_lends_nothing():
    rows = [pair(["a", "b"], [1, -1]), pair(["z", "b"], [None, None])]
    assert values(with_prefix_labels(rows)) == [(1, -1), (None, None)]


def test_labels_that_disagree_are_not_lent():
    rows = [pair(["a"], [1]), pair(["a"], [-1]), pair(["a", "b"], [None, 1])]
    assert values(with_prefix_labels(rows))[2] == (None, 1)


def test_a_label_that_is_there_stays():
    rows = [pair(["a"], [1]), pair(["a", "b"], [0, 1])]
    assert values(with_prefix_labels(rows))[1] == (0, 1)


def test_a_machine_lends_nothing_to_a_person():
    rows = [pair(["a"], [1], Rater("rule", "r")), pair(["a", "b"], [None, 1])]
    assert values(with_prefix_labels(rows))[1] == (None, 1)
