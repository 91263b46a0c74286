// Field names are those of the protos in camel case; protos/fslr/advisor/v1 describes them.

export interface Group {
  name: string;
  role?: string;
  depthIndex?: number;
  depthCount?: number;
  innerIndices?: number[];
  innerCounts?: number[];
  parameterCount?: number;
  shape?: number[];
  fanIn?: number;
  fanOut?: number;
  kind?: string;
  initialRms?: number;
  optimizer?: string;
  residualOutput?: boolean;
}

export interface Layout {
  groups: Group[];
  roleTemplates?: string[];
  frozenNames?: string[];
  frozenParameterCounts?: number[];
}

/** How much larger a run is than its base, in what layouts do not show. */
export interface TrainingRatios {
  headSize?: number;
  batch?: number;
  tokens?: number;
  sequence?: number;
}

/** A recipe's factors for one run; arrays are in layout order. */
export interface RecipeFactors {
  learningRates: number[];
  weightDecays: number[];
  epsilons: number[];
  oneMinusBeta1s: number[];
  oneMinusBeta2s: number[];
  initialScales: number[];
  initialRms: number[];
  hasRule: boolean[];
  conditions: string[];
}

export interface RunOpening {
  /** `projects/{project}/profiles/{profile}`, optionally with `@{version}` or `@{alias}`. */
  profile: string;
  layout: Layout;
  /** `projects/{project}/runs/{run}`; without it nothing is stored. */
  run?: string;
  totalSteps?: number;
  policy?: Record<string, unknown>;
  optimizer?: string;
  observeOnly?: boolean;
  baseLearningRate?: number;
  batchSize?: number;
  lossName?: string;
  session?: string;
  trainingRatios?: TrainingRatios;
  recipe?: string;
  initialWeightsFollowRecipe?: boolean;
}

/** One step's unit rates; arrays are in layout order. */
export interface Measurement {
  step: number;
  unitRates: number[];
  relativeErrors?: number[];
  multipliers?: number[];
  learningRates?: number[];
  intervalSteps?: number;
  probes?: number;
  examples?: number;
  loss?: number;
  totalRate?: number;
  shares?: number[];
  linearityError?: number;
  advised?: boolean[];
  weightRms?: number[];
  updateRms?: number[];
  excludesWeightDecay?: boolean;
  mask?: string;
  measuringSeconds?: number;
  measuringOverhead?: number;
  weightDecays?: number[];
}

export interface Recommendation {
  step: number;
  profile: string;
  digest: string;
  multipliers: number[];
  outcomes: string[];
  referenceUnitRates: number[];
  nextMeasurementStep: number;
  stale: boolean;
  depthFactors: number[];
  rawMultipliers: number[];
  limits: number[];
  probes: number;
  warnings: { kind: string; message: string }[];
  profileStep: number;
  policy: string;
  recommended: boolean[];
  priors: number[];
  weightDecay: string;
  recipe: string;
  recipeFactors: RecipeFactors | null;
}

export interface LayoutMapping {
  profile: string;
  mappings: { group: string; role: string; sources: string[]; depthFactor: number; match: string; prior: number }[];
  unmatched: string[];
  refusal: string;
  warnings: string[];
  weightDecay: string;
  policy: string;
  minIntervalSteps: number;
  maxIntervalSteps: number;
  recipe: string;
  minMultiplier: number;
  maxMultiplier: number;
}

export interface ClientOptions {
  /** Default: the environment variable FSLR_TOKEN. */
  token?: string;
  /** The caller's name in the audit log. */
  actor?: string;
  /** Maximum wait for an answer. Default: 10,000. */
  deadlineMs?: number;
  /** File of the certificate authority that signed the advisor's certificate. Default: FSLR_TLS_CA. */
  ca?: string;
  /** Files of the client's own certificate, if the advisor asks for one. */
  cert?: string;
  key?: string;
  /** Whether a token may be sent to another machine without TLS. */
  allowInsecure?: boolean;
  /** Folder of the protos. Default: that of the repository. */
  protos?: string;
}

/** The advisor refused a call, or could not answer it. */
export class ServiceError extends Error {
  /** A number of google.rpc.Code, and its name. */
  code: number;
  codeName: string;
  /** Such as PROFILE_NOT_FOUND; docs/reference/errors.md lists them. Empty: not from the service. */
  reason: string;
  metadata: Record<string, string>;
  /** How long the service asks to wait before a retry; null: it does not say. */
  retryDelayMs: number | null;
}

export class RunSession {
  /** Answered one after the other; an unavailable service is asked up to 5 times. */
  recommend(measurement: Measurement): Promise<Recommendation>;
  /** Ends the run, if the opening names one; resolves once the service knows, or after a second. */
  close(): Promise<void>;
}

export class AdvisorClient {
  constructor(address: string, options?: ClientOptions);
  readonly address: string;
  readonly deadlineMs: number;
  openRun(opening: RunOpening): RunSession;
  recommendOnce(opening: RunOpening, measurement: Measurement): Promise<Recommendation>;
  validateLayout(opening: RunOpening): Promise<LayoutMapping>;
  registerProfile(name: string, content: Record<string, unknown>, requestId?: string): Promise<{ profile: Record<string, unknown>; created: boolean }>;
  getProfile(name: string): Promise<Record<string, unknown>>;
  getRun(name: string): Promise<Record<string, unknown>>;
  status(): Promise<Record<string, unknown>>;
  /** Any method without a stream, by the names in the protos. */
  call(service: string, method: string, request?: Record<string, unknown>): Promise<Record<string, unknown>>;
  close(): void;
}
