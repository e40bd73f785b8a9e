from .alg import AnnealedLangevin as AnnealedLangevin
from .app import HGGDPRecon as HGGDPRecon
from .checkpoint import bundled_priors as bundled_priors
from .prior import ScorePrior as ScorePrior
from .prior import load_prior as load_prior
from .prox import L2DataConsistency as L2DataConsistency
from .schedule import NoiseSchedule as NoiseSchedule
from .uncertainty import UncertaintyMap as UncertaintyMap

__version__: str
