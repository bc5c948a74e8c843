"""Networks f(t, x, condition) -> (n, d) with an exact divergence."""

import itertools
import math

import torch
from torch import Tensor, nn

__all__ = ["ACTIVATIONS", "FiLMNetwork", "PreconditionedField", "velocity_and_divergence"]

# Rows times features times width of one block of tangents: small enough for cache.
_TANGENT_BLOCK = 2**19


def _silu(a):
    s = torch.sigmoid(a)
    h = a * s
    return h, s + h * (1 - s)


def _tanh(a):
    h = torch.tanh(a)
    return h, 1 - h * h


def _softplus(a):
    return nn.functional.softplus(a), torch.sigmoid(a)


# name -> (activation, activation with its derivative); smooth ones only, since
# the divergence of the velocity is integrated.
ACTIVATIONS = {
    "silu": (nn.functional.silu, _silu),
    "tanh": (torch.tanh, _tanh),
    "softplus": (nn.functional.softplus, _softplus),
}


def time_features(t: Tensor) -> Tensor:
    """Smooth, bounded functions of t, finite a little outside [0, 1], dense towards both ends.

    With u = log((t + .02) / (1 - t + .02)) / 4: the pair (t, u) and the first three harmonics of u.
    """
    # The offset keeps u finite and smooth up to the ends: a clamped logarithm
    # there would stall a fourth-order solver.
    u = torch.log((t + 0.02) / (1.02 - t)) / 4
    harmonics = [f(k * math.pi / 2 * u) for k in (1, 2, 3) for f in (torch.sin, torch.cos)]
    return torch.stack([2 * t - 1, u, *harmonics], -1)


N_TIME_FEATURES = 8


def _uniform(shape, bound, generator):
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))


class FiLMNetwork(nn.Module):
    """A perceptron whose layers are scaled and shifted by smooth functions of time.

    h_k = act( (1 + g_k(t)) * (W_k h_{k-1}) + c_k(t) ),    F = W_o h_L + w_o

    with g_k and c_k affine in `time_features` (and in the condition), zero-initialised output, and
    the exact trace of dF/dx: closed for one and two hidden layers,
    tr J = s_1^T [(W_1 W_o) * W_2^T] s_2, by tangents of the inner layers beyond.

    Parameters
    ----------
    n_features : int
        Number of columns of x.
    n_conditions : int
        Number of columns of the condition; 0 for none.
    hidden_layer_sizes : tuple of int
        Widths of the hidden layers.
    activation : {"silu", "tanh", "softplus"}
        The activation; smooth, since its derivative is integrated.
    generator : torch.Generator
        The source of the initial weights.
    """

    def __init__(self, n_features, n_conditions, hidden_layer_sizes, activation, generator=None):
        super().__init__()
        self.activation = activation
        widths = [n_features, *hidden_layer_sizes]
        # Wide scores (gain sqrt 3) for the inner layers: with the variance of
        # torch's default the signal fades by 3 a layer and early steps are lost.
        self.weights = nn.ParameterList(
            _uniform((m, n), math.sqrt(3 / n), generator) for n, m in itertools.pairwise(widths)
        )
        n_inputs = N_TIME_FEATURES + n_conditions
        self.modulations = nn.ParameterList(
            _uniform((2 * m, n_inputs), 0.3 / math.sqrt(n_inputs), generator) for m in widths[1:]
        )
        self.shifts = nn.ParameterList(nn.Parameter(torch.zeros(2 * m)) for m in widths[1:])
        self.output = nn.Parameter(torch.zeros(n_features, widths[-1]))
        self.bias = nn.Parameter(torch.zeros(n_features))

    def _modulation(self, t: Tensor, condition: Tensor | None) -> list[tuple[Tensor, Tensor]]:
        inputs = time_features(t)
        if condition is not None:
            inputs = torch.cat([inputs.expand(condition.shape[0], -1), condition], -1)
        affine = [nn.functional.linear(inputs, m, c) for m, c in zip(self.modulations, self.shifts, strict=True)]
        return [a.chunk(2, -1) for a in affine]

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """F(t, x), for t of shape () or (n,)."""
        act = ACTIVATIONS[self.activation][0]
        h = x
        for w, (g, c) in zip(self.weights, self._modulation(t, condition), strict=True):
            h = act(torch.addcmul(c, nn.functional.linear(h, w), 1 + g))
        return nn.functional.linear(h, self.output, self.bias)

    def value_and_trace(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """F(t, x) and the trace of dF/dx, of shapes (n, d) and (n,)."""
        act = ACTIVATIONS[self.activation][1]
        h, slopes = x, []
        for w, (g, c) in zip(self.weights, self._modulation(t, condition), strict=True):
            h, slope = act(torch.addcmul(c, nn.functional.linear(h, w), 1 + g))
            slopes.append(slope * (1 + g))
        return nn.functional.linear(h, self.output, self.bias), self._trace(slopes)

    def _trace(self, slopes: list[Tensor]) -> Tensor:
        first, last = self.weights[0], self.output
        if len(slopes) == 1:
            return slopes[0] @ (last.T * first).sum(1)
        if len(slopes) == 2:
            return ((slopes[0] @ ((first @ last) * self.weights[1].T)) * slopes[1]).sum(1)
        rows = max(1, _TANGENT_BLOCK // (first.shape[1] * max(w.shape[0] for w in self.weights)))
        blocks = zip(*(s.split(rows) for s in slopes), strict=True)
        return torch.cat([self._trace_by_tangents(block) for block in blocks])

    def _trace_by_tangents(self, slopes) -> Tensor:
        # tangents[r, j, :] is the derivative of the layer with respect to x_j in row r
        tangents = slopes[0][:, None, :] * self.weights[0].T
        for w, s in zip(self.weights[1:-1], slopes[1:-1], strict=True):
            tangents = nn.functional.linear(tangents, w) * s[:, None, :]
        inner = nn.functional.linear(tangents, self.weights[-1])
        return torch.einsum("rjk,jk,rk->r", inner, self.output, slopes[-1])


class PreconditionedField(nn.Module):
    """A network around the closed-form field of a Gaussian pair of ends.

    f(t, x) = slope(t) * x + c_out(t) F(t, x / sd(t))

    With F = 0 the field is the exact one of independent (or correlated) Gaussian ends with
    the given variances, so that training starts from the Gaussian maximum-likelihood model.

    Parameters
    ----------
    interpolant : Interpolant
        The path, spatially linear.
    network : FiLMNetwork
        The network F.
    target : {"velocity", "denoiser"}
        Which field it is.
    v0, v1, c : Tensor of shape (n_features,)
        Variances of the ends and their covariance, a feature; c may be None.
    """

    def __init__(self, interpolant, network, target, v0, v1, c=None):
        super().__init__()
        self.interpolant, self.network, self.target = interpolant, network, target
        self.register_buffer("v0", v0)
        self.register_buffer("v1", v1)
        self.register_buffer("c", c)

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Slope of shape (..., d), c_out and sd of shape (..., 1), for t of shape (...,)."""
        t = t[..., None]
        variance = self.interpolant.variance(t, self.v0, self.v1, self.c)
        # Scalars in space keep the trace of the residual network closed.
        sd = variance.mean(-1, keepdim=True).sqrt()
        if self.target == "denoiser":
            gamma = self.interpolant.gamma(t)
            # gamma / sqrt(gamma^2 + .05^2): eta vanishes with gamma, so that the
            # score -eta / gamma is never a quotient of two small numbers.
            return gamma / variance, gamma / torch.sqrt(gamma**2 + 0.0025), sd
        slope = self.interpolant.covariance_dot(t, self.v0, self.v1, self.c) / variance
        return slope, self.output_scale(t), sd

    def output_scale(self, t: Tensor) -> Tensor:
        """c_out of the velocity, of the shape of t."""
        return self.interpolant.residual_scale(t, self.v0.mean(), self.v1.mean())

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """f(t, x), of shape (n, d)."""
        slope, scale, sd = self.coefficients(t)
        return torch.addcmul(slope * x, scale, self.network(t, x / sd, condition))

    def velocity_and_divergence(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """f(t, x) and its exact divergence, of shapes (n, d) and (n,)."""
        slope, scale, sd = self.coefficients(t)
        value, trace = self.network.value_and_trace(t, x / sd, condition)
        divergence = slope.expand(*slope.shape[:-1], x.shape[1]).sum(-1) + (scale / sd).squeeze(-1) * trace
        return torch.addcmul(slope * x, scale, value), divergence

    def score_factor(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """-eta / gamma without the division, for a denoiser field."""
        variance = self.interpolant.variance(t[..., None], self.v0, self.v1, self.c)
        gamma2 = self.interpolant.gamma(t)[..., None] ** 2
        sd = variance.mean(-1, keepdim=True).sqrt()
        return -(x / variance + self.network(t, x / sd, condition) / torch.sqrt(gamma2 + 0.0025))


def velocity_and_divergence(network, t: Tensor, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The field of any module with its exact divergence: the module's own, or by d forward tangents."""
    if hasattr(network, "velocity_and_divergence"):
        return network.velocity_and_divergence(t, x, condition)

    def row(time, point, extra):
        return network(time.reshape(1), point[None], None if condition is None else extra[None])[0]

    times = t.expand(x.shape[0])
    extras = x[:, :0] if condition is None else condition
    jacobian = torch.func.vmap(torch.func.jacfwd(row, argnums=1))(times, x, extras)
    return network(t, x, condition), jacobian.diagonal(dim1=1, dim2=2).sum(1)
