"""The day of portfolios in compiled code, row by row: numbers only, no tensors and no errors.

A row is one portfolio. Nothing is summed over rows, so a row comes out the same to the last bit
alone, in any batch and on any number of threads. `fused.py` decides when these kernels run.
`limits.py` and `portfolio.py` say the same in PyTorch, and the kernels are tested against them.
"""

from typing import no_type_check

import numpy as np
from numba import njit

SMALLEST_MASS = 1e-150
"""Preferences that sum to less count as 0. The inverse square of this number is still finite."""
ROUNDING = 4
"""Machine epsilons by which rounding may lift weights above a limit that was applied to them."""
GROWTH_ROUNDING = 16
"""Machine epsilons by which the values of a portfolio may sum to more than its wealth."""
WEIGHT_TOLERANCE = 1e-5
"""Rounding allowed in target weights before they are refused."""
MAX_NEWTON_ROUNDS = 20
COST_ROUNDING = 4
"""Machine epsilons by which the cost of a trade may still change when it counts as found."""
MAX_COST = 0.5
"""Share of wealth above which the square-root law of market impact is not credible."""
HELD, PLAIN, FROZEN = 0, 1, 2
"""Cases of a trade: no orders; orders alone; holdings that cannot trade, or costs by volume."""
BLOCK = 16
"""Rows that go through all stages together, so that they stay in the cache of a core."""

# All kernels are in one file, because the cache of Numba follows the file of a kernel and not those
# of the functions that it calls. They have no shape annotations: the run-time checks of the tests
# would wrap them, and Numba could not compile that. fastmath may reorder sums. Its other options
# are off, because NaN must stay NaN, and products must round as they do in PyTorch. Every stage
# loops over rows itself: to hand on a slice costs more than to sum its numbers.
_compiled = njit(cache=True, nogil=True, fastmath={"reassoc"})
_contracted = njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})


@_contracted
@no_type_check
def find_theta(preferences, caps, row, first, last, total):
    """Solve sum min(u, theta p) = total over columns of a row, by Newton's method."""
    mass = 0.0
    for k in range(first, last):
        mass += preferences[row, k]
    theta = total / max(mass, SMALLEST_MASS)
    for _ in range(last - first + 1):
        held, open_mass = 0.0, 0.0
        for k in range(first, last):
            is_capped = theta * preferences[row, k] >= caps[row, k]
            open_mass += 0.0 if is_capped else preferences[row, k]
            held += caps[row, k] if is_capped else 0.0
        grown = max(total - held, 0.0) / max(open_mass, SMALLEST_MASS)
        if not (open_mass > 0 and grown > theta):
            break
        theta = grown
    return theta


@_contracted
@no_type_check
def find_thetas(preferences, caps, totals, thetas):
    """Solve `find_theta` for every row."""
    for row in range(len(totals)):
        thetas[row] = find_theta(preferences, caps, row, 0, preferences.shape[1], totals[row])


@_compiled
@no_type_check
def _at_least(value, lowest):
    return lowest if value < lowest else value  # NaN stays


@_compiled
@no_type_check
def limit_rows(first, last, decisions, tables, rules, targets):
    """Write the targets of some rows, as `limits.target_weights` makes them.

    Return whether all rows can be limited. If not, no target is to be used.
    """
    days, weights, actions, _ = decisions
    halted, slot_open, slot_held, slots, sector_of = tables
    stock_cap, sector_cap, turnover_cap, n_sectors = rules
    kind = weights.dtype.type
    wanted = np.empty((BLOCK, actions.shape[1]), kind)
    room = np.empty((BLOCK, n_sectors + 1), kind)
    exact = np.empty((1, actions.shape[1])), np.empty((1, actions.shape[1]))
    for b in range(first, last):
        if days[b] < 0 or days[b] >= len(halted):
            return False
    for block in range(first, last, BLOCK):
        end = min(block + BLOCK, last)
        _read_actions(block, end, days, actions, slot_open, wanted)
        _find_room(block, end, decisions, halted, sector_of, kind(sector_cap), room)
        if not _fit(block, end, days, slot_open, kind(stock_cap), wanted, room, exact):
            return False
        _write_targets(block, end, days, weights, halted, wanted, slots, slot_held, targets)
        if turnover_cap < 1:
            _cap_turnover(block, end, weights, kind(turnover_cap), targets)
    return True


@_compiled
@no_type_check
def _read_actions(first, last, days, actions, slot_open, wanted):
    zero = actions.dtype.type(0)
    for b in range(first, last):
        for n in range(actions.shape[1]):
            asked = actions[b, n]
            wanted[b - first, n] = (zero if asked < 0 else asked) * slot_open[days[b], n]


@_compiled
@no_type_check
def _find_room(first, last, decisions, halted, sector_of, sector_cap, room):
    """Write what halted holdings leave of the sector caps, and of the exposure (last column)."""
    days, weights, _, exposures = decisions
    n_sectors = room.shape[1] - 1
    zero = weights.dtype.type(0)
    for b in range(first, last):
        size = zero
        for a in range(weights.shape[1]):
            size += abs(weights[b, a] * halted[days[b], a])
        r = b - first
        room[r] = zero
        if size > 0:
            for a in range(weights.shape[1]):
                room[r, sector_of[a]] += weights[b, a] * halted[days[b], a]
        total = zero
        for s in range(n_sectors):
            total += room[r, s]
            room[r, s] = _at_least(sector_cap - room[r, s], zero)
        room[r, n_sectors] = _at_least(exposures[b] - total, zero)


@_compiled
@no_type_check
def _fit(first, last, days, slot_open, stock_cap, wanted, room, exact):
    """Bring what is wanted within the limits; False where a number is not finite."""
    kind = wanted.dtype.type
    n_sectors = room.shape[1] - 1
    per_sector = wanted.shape[1] // n_sectors
    tolerance = kind(ROUNDING * np.finfo(wanted.dtype).eps)
    for b in range(first, last):
        r = b - first
        total, above = kind(0), kind(0)
        for s in range(n_sectors):
            of_sector = kind(0)
            for n in range(s * per_sector, (s + 1) * per_sector):
                of_sector += wanted[r, n]
                over = wanted[r, n] - stock_cap * slot_open[days[b], n]
                above += kind(1) if over > tolerance else kind(0)
            above += kind(1) if of_sector - room[r, s] > tolerance else kind(0)
            total += of_sector
        if not np.isfinite(total + room[r, n_sectors]):
            return False
        if above > 0 or total - room[r, n_sectors] > tolerance:
            _project(r, slot_open, days[b], stock_cap, wanted, room, total, exact)
    return True


@_compiled
@no_type_check
def _project(r, slot_open, day, stock_cap, wanted, room, total, exact):
    """Project a row in place, as `projection.project_weights` does: in float64, sectors first.

    `exact` holds preferences and upper limits.
    """
    preferences, upper = exact
    n_slots, n_sectors = wanted.shape[1], room.shape[1] - 1
    per_sector = n_slots // n_sectors
    for n in range(n_slots):
        preferences[0, n] = wanted[r, n]
        upper[0, n] = stock_cap * slot_open[day, n]
    for s in range(n_sectors):
        begin, end = s * per_sector, (s + 1) * per_sector
        theta = find_theta(preferences, upper, 0, begin, end, np.float64(room[r, s]))
        for n in range(begin, end):
            upper[0, n] = min(theta * preferences[0, n], upper[0, n])
    invested = np.float64(min(total, room[r, n_sectors]))
    theta = find_theta(preferences, upper, 0, 0, n_slots, invested)
    for n in range(n_slots):
        wanted[r, n] = min(theta * preferences[0, n], upper[0, n])


@_compiled
@no_type_check
def _write_targets(first, last, days, weights, halted, wanted, slots, slot_held, targets):
    for b in range(first, last):
        day = days[b]
        for a in range(targets.shape[1]):
            targets[b, a] = weights[b, a] * halted[day, a]
        for n in range(slots.shape[1]):
            targets[b, slots[day, n]] += wanted[b - first, n] * slot_held[day, n]


@_compiled
@no_type_check
def _cap_turnover(first, last, weights, cap, targets):
    kind = targets.dtype.type
    for b in range(first, last):
        distance = kind(0)
        for a in range(targets.shape[1]):
            distance += abs(targets[b, a] - weights[b, a])
        distance *= kind(0.5)
        share = cap / distance if distance > cap else kind(1)
        for a in range(targets.shape[1] if distance > cap else 0):
            targets[b, a] = weights[b, a] + share * (targets[b, a] - weights[b, a])


@_compiled
@no_type_check
def session_rows(first, last, portfolios, orders, tables, costs, sector_cap, holdings, earned):
    """Earn one session in some rows, as `PortfolioSimulator.step` does.

    `holdings` gets the day, and the weights before the trade, after it and at the close. `earned`
    gets net and gross return, cost, turnover, cash and what was delisted. Return whether all rows
    can be booked. If not, none of these numbers is to be used.
    """
    decided, targets, moves, holds = orders
    kind = targets.dtype.type
    cases = np.empty(BLOCK, np.int64)
    scratch = np.zeros((4, targets.shape[1]), kind), np.empty((5, tables[9]), kind)
    rules = costs, kind(sector_cap)
    if not _find_days(first, last, decided, moves, len(tables[0]), holdings[0]):
        return False
    for block in range(first, last, BLOCK):
        end = min(block + BLOCK, last)
        if not _are_long_only(block, end, targets):
            return False
        _open(block, end, portfolios, tables, costs, holdings, earned)
        _place_orders(block, end, targets, holds, tables, holdings, cases)
        _trade(block, end, cases, costs, holdings, earned)
        for b in range(block, end):
            if cases[b - block] == FROZEN and not _trade_beside_frozen(
                b, orders, portfolios[2], tables, rules, holdings, earned, scratch
            ):
                return False
        _close(block, end, tables[1], holdings, earned)
    return True


@_compiled
@no_type_check
def _find_days(first, last, decided, moves, n_days, days):
    """Write the day that each row earns; False where one that moves has none."""
    for b in range(first, last):
        stays = len(moves) > 0 and not moves[b]
        days[b] = min(decided[b] + 1, n_days - 1) if stays else decided[b] + 1
        if days[b] < 0 or days[b] >= n_days:
            return False
    return True


@_compiled
@no_type_check
def _are_long_only(first, last, targets):
    """Tell whether weights are finite, not negative, and sum to at most 1, but for rounding."""
    kind = targets.dtype.type
    lowest, most = kind(-WEIGHT_TOLERANCE), kind(1 + WEIGHT_TOLERANCE)
    n_wrong = 0
    for b in range(first, last):
        total, n_negative = kind(0), kind(0)
        for a in range(targets.shape[1]):
            total += targets[b, a]
            n_negative += kind(1) if targets[b, a] < lowest else kind(0)
        n_wrong += 0 if n_negative == 0 and total <= most else 1
    return n_wrong == 0


@_compiled
@no_type_check
def _open(first, last, portfolios, tables, costs, holdings, earned):
    """Earn the night: write holdings at the open, what the night gained, and growth over it."""
    weights, cash, _ = portfolios
    overnight, _, risk_free, _, _, _, gone, _, _, _ = tables
    days, before, _, _ = holdings
    kind = weights.dtype.type
    night, growth, delisted = earned[0], earned[1], earned[5]
    least = kind(1 - GROWTH_ROUNDING * np.finfo(weights.dtype).eps)
    for b in range(first, last):
        day, lost = days[b], costs[b if len(costs) > 1 else 0, 4]
        gained, total, ended = kind(0), kind(0), kind(0)
        for a in range(weights.shape[1]):
            moved = weights[b, a] * (lost if gone[day, a] else overnight[day, a])
            gained += moved
            before[b, a] = weights[b, a] + moved
            total += before[b, a]
        night[b] = gained + cash[b] * risk_free[day]
        # of an almost total loss 1 + night keeps no digit, while the values that are left do
        grown = _at_least(kind(1) + night[b], least * total)
        growth[b] = _at_least(grown, kind(np.finfo(weights.dtype).tiny))
        for a in range(weights.shape[1]):
            before[b, a] /= growth[b]
            ended += before[b, a] if gone[day, a] else kind(0)
        delisted[b] = ended


@_compiled
@no_type_check
def _place_orders(first, last, targets, holds, tables, holdings, cases):
    """Write the orders that can be filled, and the case of every row."""
    days, before, after, _ = holdings
    _, _, _, fillable, stuck, _, gone, volume, _, _ = tables
    kind = targets.dtype.type
    for b in range(first, last):
        day, is_held = days[b], len(holds) > 0 and holds[b]
        frozen, ended = kind(0), kind(0)
        for a in range(targets.shape[1]):
            after[b, a] = before[b, a] if is_held else targets[b, a] * fillable[day, a]
            frozen += abs(before[b, a] * stuck[day, a])
            ended += abs(before[b, a]) if gone[day, a] else kind(0)
        case = PLAIN if frozen == 0 and len(volume) == 0 else FROZEN
        if is_held:
            case = HELD if ended == 0 else FROZEN
        cases[b - first] = case


@_compiled
@no_type_check
def _trade(first, last, cases, costs, holdings, earned):
    """Trade to the orders where nothing is frozen and no cost depends on volume."""
    _, before, after, _ = holdings
    kind = before.dtype.type
    tolerance = kind(COST_ROUNDING * np.finfo(before.dtype).eps)
    for b in range(first, last):
        even, odd = costs[b if len(costs) > 1 else 0, 0], costs[b if len(costs) > 1 else 0, 1]
        cost, change, size = kind(0), kind(1), kind(0)
        n_rounds = MAX_NEWTON_ROUNDS if cases[b - first] == PLAIN else 0
        while n_rounds > 0 and not change <= tolerance:
            size, net, up, total = kind(0), kind(0), kind(0), kind(0)
            for a in range(before.shape[1]):
                value = (kind(1) - cost) * after[b, a] - before[b, a]
                size += abs(value)
                net += value
                up += after[b, a] if value > 0 else (-after[b, a] if value < 0 else kind(0))
                total += after[b, a]
            slope = kind(1) + even * up + odd * total
            previous, cost = cost, cost + (even * size + odd * net - cost) / slope
            change = abs(cost - previous)
            n_rounds -= 1
        earned[2][b] = cost
        size = kind(0)
        for a in range(before.shape[1]):
            size += abs((kind(1) - cost) * after[b, a] - before[b, a])
        earned[3][b] = kind(0.5) * size if cases[b - first] == PLAIN else kind(0)


@_compiled
@no_type_check
def _trade_beside_frozen(b, orders, wealth, tables, rules, holdings, earned, scratch):
    """Trade a row that has frozen holdings or costs by volume; False where it costs too much."""
    _, targets, _, holds = orders
    days, before, after, _ = holdings
    costs, sector_cap = rules
    stocks, sectors = scratch
    kind, day, has_impact = before.dtype.type, days[b], len(tables[7]) > 0
    is_held = len(holds) > 0 and holds[b]
    rate = b if len(costs) > 1 else 0
    for a in range(before.shape[1]):
        stays = tables[5][day, a] if is_held else tables[4][day, a]
        stocks[0, a] = kind(0) if is_held else after[b, a]
        stocks[1, a] = before[b, a] * stays
    limit = _sum_sectors(b, targets, tables[8], sector_cap, stocks, sectors)
    if has_impact:
        _find_roots(wealth[b] * earned[1][b], day, tables[7], costs, rate, stocks)
    tolerance = kind(COST_ROUNDING * np.finfo(before.dtype).eps)
    cost = kind(0)
    for _ in range(MAX_NEWTON_ROUNDS):
        _scale_orders(b, kind(1) - cost, limit, tables[8], stocks, sectors, after)
        previous, cost = cost, _newton_step(b, cost, costs, rate, before, after, stocks)
        if abs(cost - previous) <= tolerance:
            break
    _scale_orders(b, kind(1) - cost, limit, tables[8], stocks, sectors, after)
    size = kind(0)
    for a in range(before.shape[1]):
        size += abs((kind(1) - cost) * after[b, a] - before[b, a])
    earned[2][b], earned[3][b] = cost, kind(0.5) * size
    return not has_impact or cost <= MAX_COST


@_compiled
@no_type_check
def _sum_sectors(b, targets, sector_of, sector_cap, stocks, sectors):
    """Write limit, orders and frozen values of every sector, and return the limit of the whole."""
    sectors[:3] = targets.dtype.type(0)
    whole = targets.dtype.type(0)
    for a in range(targets.shape[1]):
        s = sector_of[a]
        sectors[0, s] += targets[b, a]
        sectors[1, s] += stocks[0, a]
        sectors[2, s] += stocks[1, a]
        whole += targets[b, a]
    for s in range(sectors.shape[1]):
        sectors[0, s] = _at_least(sectors[0, s], sector_cap)
    return whole


@_compiled
@no_type_check
def _find_roots(wealth, day, volume, costs, rate, stocks):
    """Write r with impact = r |v|^1.5, where v is a share of wealth."""
    kind = stocks.dtype.type
    dollars = _at_least(wealth, kind(0)) * costs[rate, 3]
    for a in range(stocks.shape[1]):
        known = volume[day, a] > 0
        root = np.sqrt(dollars / (volume[day, a] if known else kind(1)))
        stocks[3, a] = costs[rate, 2] * root if known else kind(0)


@_compiled
@no_type_check
def _newton_step(b, cost, costs, rate, before, after, stocks):
    """Return c + (cost of the trade - c) / (1 + d cost / d m), as `trades.fill_orders` does."""
    kind = before.dtype.type
    paid, slope = kind(0), kind(1)
    for a in range(before.shape[1]):
        value = (kind(1) - cost) * after[b, a] - before[b, a]
        size = abs(value)
        side = kind(1) if value > 0 else (kind(-1) if value < 0 else kind(0))
        marginal = stocks[3, a] * np.sqrt(size)
        paid += costs[rate, 0] * size + costs[rate, 1] * value + marginal * size
        slope += (costs[rate, 0] * side + costs[rate, 1] + kind(1.5) * marginal * side) * stocks[
            2, a
        ]
    return cost + (paid - cost) / slope


@_compiled
@no_type_check
def _scale_orders(b, left, limit, sector_of, stocks, sectors, after):
    """Write the weights that are reached beside frozen holdings, and the slopes of their values.

    See `trades._scales`: frozen holdings use up the limits of sectors first, then of the whole.
    """
    kind = after.dtype.type
    filled, held, fall = kind(0), kind(0), kind(0)
    for s in range(sectors.shape[1]):
        wanted = sectors[1, s]
        scale, turn = _scale(sectors[0, s], sectors[2, s], wanted, left, kind(1))
        sectors[3, s], sectors[4, s] = scale, turn
        filled, fall, held = filled + scale * wanted, fall + turn * wanted, held + sectors[2, s]
    overall, turn = _scale(limit, held, filled, left, kind(1))
    is_bound = overall > 0 and overall < 1
    turn = turn - overall * (fall / (filled if filled > 0 else kind(1))) if is_bound else kind(0)
    for s in range(sectors.shape[1]):
        sectors[4, s] = turn * sectors[3, s] + overall * sectors[4, s]
        sectors[3, s] *= overall
    for a in range(after.shape[1]):
        scale, turn = sectors[3, sector_of[a]], sectors[4, sector_of[a]]
        after[b, a] = scale * stocks[0, a] + stocks[1, a] / left
        stocks[2, a] = (scale + left * turn) * stocks[0, a]


@_compiled
@no_type_check
def _scale(limit, held, wanted, left, one):
    """Return clamp((limit - held / left) / wanted, 0, 1) and its slope in `left`."""
    zero = one - one
    if not wanted > 0:
        return one, zero
    raw = (limit - held / left) / wanted
    if raw <= 0:
        return zero, zero
    return (one, zero) if raw >= 1 else (raw, held / (left * left * wanted))


@_compiled
@no_type_check
def _close(first, last, intraday, holdings, earned):
    """Earn the day: write the weights at the close, cash and the returns of the session."""
    days, _, after, end = holdings
    net, gross, cost, _, cash, _ = earned
    kind = after.dtype.type
    for b in range(first, last):
        gained, invested = kind(0), kind(0)
        for a in range(after.shape[1]):
            moved = after[b, a] * intraday[days[b], a]
            gained += moved
            invested += after[b, a]
            end[b, a] = after[b, a] + moved
        closing = _at_least(kind(1) + gained, kind(np.finfo(after.dtype).tiny))
        for a in range(after.shape[1]):
            end[b, a] /= closing
        cash[b] = (kind(1) - invested) / closing
        night = net[b]
        gross[b] = night + gained + night * gained
        paid = night - cost[b] + night * -cost[b]
        net[b] = paid + gained + paid * gained
