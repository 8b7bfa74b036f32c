import json

from rl.draws import Draws
from rl.filters import not_solved


def draws(n, memory=None, problem_filter=None):
    return Draws(n, 0, problem_filter, {} if memory is None else memory)


def test_every_epoch_has_every_problem_once_in_an_order_of_its_own():
    drawing = draws(7)
    drawn = [drawing.next(3) for _ in range(7)]
    flat = [number for part in drawn for number in part]
    epochs = [flat[start : start + 7] for start in (0, 7, 14)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(7))] * 3
    assert epochs[0] != epochs[1]


def test_what_was_solved_in_an_epoch_is_left_out_of_the_next_one_its_last_update_included():
    drawing = draws(4, problem_filter=not_solved)
    for _ in range(2):
        drawing.tell({number: [1.0, 1.0] if number < 2 else [1.0, 0.0] for number in drawing.next(2)})
    assert sorted(drawing.next(2)) == [2, 3]
    drawing.tell({2: [1.0], 3: [1.0]})
    assert sorted(drawing.next(2)) == [0, 1]  # an epoch away, they are drawn again


def test_where_everything_is_solved_nothing_is_left_out():
    drawing = draws(3, problem_filter=not_solved)
    drawing.tell({number: [1.0] for number in drawing.next(3)})
    assert sorted(drawing.next(3)) == [0, 1, 2]


def test_the_memory_as_json_goes_on_where_it_stood():
    memory = {}
    whole = draws(5, memory, not_solved)
    whole.tell({number: [float(number % 2)] for number in whole.next(4)})
    other = draws(5, json.loads(json.dumps(memory)), not_solved)
    assert [whole.next(3) for _ in range(4)] == [other.next(3) for _ in range(4)]
