"""What scikit-learn's searches pass to a scorer."""

from sklearn.utils.metadata_routing import MetadataRequest

__all__ = ["asks_for"]


def asks_for(*params):
    """A decorator: with metadata routing, a search passes these keyword arguments to the scorer."""

    def decorate(scorer):
        request = MetadataRequest(owner=scorer.__name__)
        for param in params:
            request.score.add_request(param=param, alias=True)
        scorer.get_metadata_routing = lambda: request  # scikit-learn asks for it
        return scorer

    return decorate
