from genie.bench.timing import take_turns


class Clock:
    """A clock that advances only by the time that sides take."""

    now = 0.0

    def __call__(self):
        return self.now

    def spending(self, *seconds):
        """Returns a side whose successive calls take these seconds."""
        left = iter(seconds)

        def side():
            self.now += next(left)

        return side


def test_sides_take_turns_equally_often():
    called = []
    take_turns({name: lambda name=name: called.append(name) for name in "abc"}, rounds=4)
    assert called == list("abc") * 5  # the first round is the warm-up


def test_medians_leave_out_the_warm_up():
    clock = Clock()
    sides = {"odd": clock.spending(100, 3, 1, 50), "steady": clock.spending(0, 2, 2, 2)}
    assert take_turns(sides, rounds=3, clock=clock) == {"odd": 3, "steady": 2}


def test_an_even_number_of_rounds_takes_the_middle():
    clock = Clock()
    assert take_turns({"side": clock.spending(0, 1, 8, 2, 4)}, rounds=4, clock=clock) == {"side": 3}
