// Charts whose data are part of the page: those of profiles and comparisons.
/* global uPlot */
import { drawCharts } from "./chart.js";
import { loadParts } from "./dom.js";

drawCharts(document);
loadParts();
