"""What the curves of training mean: TensorBoard shows it, and docs/diagnosis.md."""

import itertools
import re
from functools import cache

TABLE = {
    "{pretrain,pretrain_micro}/objective": "reward of a decision in training, %",
    "{pretrain,pretrain_micro}/val_objective": "the same on validation, %; chooses the epoch",
    "pretrain/prior_kl": "divergence of the shares from the classical portfolio, nats",
    "pretrain/cash_gap": "squared distance of cash to that of the classical portfolio",
    "macro/premium": "reward term: premium on what is invested, % a week",
    "macro/cost_term": "reward term: - costs, % a week",
    "macro/variance": "reward term: - gamma / 2 x squared returns, % a week",
    "curriculum/stage": "stage of the row: 0 is the first",
    "pretrain/total_loss": "loss of phase 1 over that of a constant predictor: 1 is no skill",
    "{pretrain,pretrain_micro}/grad_norm": "mean gradient norm before clipping",
    "{pretrain,pretrain_micro}/clipped": "share of updates that were clipped",
    "{pretrain,pretrain_micro}/lr": "learning rate",
    "pretrain/val_total_loss": "loss of phase 1 on validation; selects the epoch",
    "pretrain/val_regime_loss": "cross-entropy of the regime head on validation, nats",
    "pretrain/val_regime_gain_nats": "by how much the regime head beats the class prior, nats",
    "pretrain/val_goal_cash": "mean cash of the goals; 0 under the objective `growth`",
    "pretrain/val_goal_cash_std": "deviation of the goals' cash over dates",
    "pretrain/val_goal_hhi": "concentration of the goals before calibration; 1 / sectors is even",
    "pretrain/val_goal_std": "deviation of a sector's share over dates; 0 is a constant goal",
    "pretrain/val_p_bear": "mean P(bear)",
    "pretrain/val_p_bear_std": "deviation of P(bear) over dates",
    "pretrain_micro/total_loss": "cross-entropy of phase 2",
    "pretrain_micro/score_std": "deviation of the scores in training",
    "pretrain_micro/val_total_loss": "cross-entropy of phase 2 on validation; selects the epoch",
    "pretrain_micro/val_score_std": "deviation of the scores before calibration",
    "pretrain_micro/val_score_saturation": "share of scores beyond 0.95",
    "eval/objective_pct": "objective over the classical rule, % a year, net: selects",
    "eval/excess_growth_pct": "net log growth over the classical rule, % a year",
    "eval/growth_pct": "net log growth, % a year",
    "eval/turnover_annual": "one-sided, multiples of wealth a year",
    "eval/alignment": "1 - half the L1 distance of achieved and desired sectors",
    "eval/reward_per_day": "micro reward",
    "{macro,micro}/reward": "mean reward of a step",
    "macro/growth": "reward term: % log growth over 1/N a week",
    "micro/gain": "reward term: % over the own sector's mean, less cost, a session",
    "micro/goal_term": "reward term: what the goal lost - weight x (1 - alignment)",
    "micro/growth": "no reward term: % log growth over 1/N a session",
    "{macro,micro}/cost": "share of wealth paid in a step",
    "{macro,micro}/turnover": "one-sided, share of wealth in a step",
    "{macro,micro}/alignment": "1 - half the L1 distance of achieved and desired sectors",
    "{macro,micro}/exposure": "share of wealth in stocks after the trade",
    "{macro,micro}/weights_hhi": "HHI of the stocks held; 1 / HHI are as many equal positions",
    "{macro,micro}/sector_hhi": "HHI of the sectors held",
    "{macro,micro}/stock_capped": "share of the invested money in stocks at their cap",
    "{macro,micro}/sector_capped": "share of the invested money in sectors at their cap",
    "{macro,micro}/cash_floor": "share of portfolios with no more cash than they must keep",
    "rollout/ep_rew_mean": "reward of a whole episode, mean of the last 100",
    "rollout/ep_len_mean": "steps of an episode",
    "macro/advantage_mean": "advantages of the update, after the comparison of one day's envs",
    "macro/advantage_std": "deviation of the advantages",
    "macro/advantage_min": "lowest advantage",
    "macro/advantage_max": "highest advantage",
    "macro/value_mean": "return that the critic expects",
    "macro/return_mean": "return that it should have expected (lambda returns)",
    "macro/return_std": "deviation of the returns",
    "train/explained_variance": "share of the variance of returns that the critic explains",
    "train/value_loss": "squared error of the critic",
    "train/policy_gradient_loss": "minus what PPO maximises, before the other terms",
    "train/entropy_loss": "minus the entropy",
    "train/loss": "PPO's whole loss of the last minibatch",
    "train/approx_kl": "how far an update moved the policy",
    "train/clip_fraction": "share of samples whose probability ratio was clipped",
    "train/clip_range": "`ppo.clip_range`",
    "train/learning_rate": "learning rate of PPO or TD3",
    "train/n_updates": "epochs so far",
    "macro/actor_grad_norm": "gradient norm before clipping; absent in the critic's warm-up",
    "macro/critic_grad_norm": "gradient norm of the critic before clipping",
    "macro/clipped": "share of updates whose common norm was above `ppo.max_grad_norm`",
    "macro/entropy": "entropy of the Dirichlet; differential, so negative",
    "macro/kappa": "concentration of the Dirichlet: 5 explores most, 205 least",
    "macro/goal_cash": "mean cash of the deterministic goals; 0 under the objective `growth`",
    "macro/goal_cash_std": "deviation of the goals' cash over the rollout",
    "macro/goal_hhi": "concentration of the deterministic goals",
    "macro/goal_std": "deviation of a sector's share over the rollout",
    "macro/p_bear": "mean P(bear) of the goals",
    "macro/p_bear_std": "deviation of P(bear) over the rollout",
    "micro/critic_loss": "squared error of both critics together",
    "micro/critic_grad_norm": "gradient norm of the critics before clipping",
    "micro/critic_clipped": "share of the critics' updates that were clipped",
    "micro/q1_mean": "value of the batch's actions, first critic",
    "micro/q2_mean": "value of the batch's actions, second critic",
    "micro/q_std": "deviation of the values over the batch",
    "micro/q_min": "lowest value of the batch",
    "micro/q_max": "highest value of the batch",
    "micro/target_mean": "mean of what the values are fitted to",
    "micro/td_error": "mean distance of value and target",
    "micro/twin_gap": "mean distance of the two critics",
    "micro/replay_reward": "reward of the replayed batch, after relabelling",
    "micro/actor_loss": "minus the value of the actor's own actions",
    "micro/actor_grad_norm": "gradient norm of the actor before clipping",
    "micro/actor_clipped": "share of the actor's updates that were clipped",
    "micro/q_gain": "value of the actor's actions over that of following the goal",
    "micro/q_gain_share": "share of the batch on which that gain is positive",
    "micro/score_std": "deviation of the scores",
    "micro/score_saturation": "share of scores beyond 0.95",
    "micro/exploration": "deviation of the exploration noise",
    "micro/n_updates": "gradient steps so far",
    "pretrain/regime_loss": "cross-entropy of the regime head, nats",
    "pretrain/alloc_loss": "squared error of the sector weights",
    "pretrain/val_regime_accuracy": "never read it without majority and balanced accuracy",
    "pretrain/val_regime_majority": "accuracy of always saying the commonest class",
    "pretrain/val_regime_balanced_accuracy": "mean accuracy over the classes; 1/3 is no skill",
    "pretrain/val_alloc_loss": "squared error of the sector weights on validation",
    "pretrain/val_alloc_skill": "1 - error / error of uniform weights",
    "pretrain_micro/loss": "cross-entropy of phase 2, as its only term",
    "pretrain_micro/val_loss_gain": "1 - loss / loss of following the goal",
    "pretrain_micro/val_rank_ic": "rank correlation of scores and returns inside the sectors",
    "pretrain_micro/val_rank_ic_se": "standard error of the rank correlation inside the sectors",
    "pretrain_micro/val_universe_rank_ic": "the same over all stocks: sectors' moves are noise",
    "pretrain_micro/val_universe_rank_ic_se": "standard error of it",
    "macro/concentration": "reward term: - weight x (HHI of the goal - 1 / sectors)",
    "macro/drawdown": "reward term: - weight x deeper active drawdown",
}
"""Name -> meaning; `{a,b}/c` stands for both names."""


def meaning(name: str) -> str:
    """Say what a curve is.

    Args:
        name: of the curve, as in the history and in TensorBoard.

    Returns:
        A phrase; empty for a name that the table does not hold.

    Examples:
        >>> meaning("micro/twin_gap")
        'mean distance of the two critics'
        >>> meaning("mine")
        ''
    """
    return meanings().get(name, "")


@cache
def meanings() -> dict[str, str]:
    """Write the table out.

    Returns:
        Name of a curve -> what it is.
    """
    return {name: text for pattern, text in TABLE.items() for name in expanded(pattern)}


def expanded(pattern: str) -> list[str]:
    """Write `{a,b}/c` out.

    Args:
        pattern: a name, with braces where several names share the rest.

    Returns:
        The names.

    Examples:
        >>> expanded("{macro,micro}/cost")
        ['macro/cost', 'micro/cost']
    """
    parts = [part.split(",") for part in re.split(r"[{}]", pattern)]
    return ["".join(chosen) for chosen in itertools.product(*parts)]
