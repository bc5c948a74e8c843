"""The velocity and the denoiser of a model, from the fields that it has learned."""

from ..networks import ComposedVelocity, DenoiserOfScore, PreconditionedField

__all__ = ["compose"]


def compose(interpolant, learned):
    """The velocity and the denoiser (or None) from the learned fields."""
    if "masked" in learned:
        return learned["masked"].joint(), None
    denoiser = learned.get("denoiser")
    if "score" in learned:
        denoiser = DenoiserOfScore(interpolant, learned["score"])
    if "velocity" in learned or "forecast" in learned:
        return learned.get("velocity", learned.get("forecast")), denoiser
    if not isinstance(denoiser, PreconditionedField | DenoiserOfScore):
        raise ValueError(
            "A network factory gives the denoiser without its score, so the velocity cannot be composed from it at "
            "both ends: use fields='b+eta' or network='mlp'."
        )
    return ComposedVelocity(interpolant, denoiser.as_score(), learned.get("drift")), denoiser
