package op

// mathTable: elementwise operators, reductions, functions along an axis and casts.
var mathTable = []*Def{
	absDef, acosDef, acoshDef, addDef, andDef, argMaxDef, argMinDef, asinDef, asinhDef, atanDef, atanhDef,
	bitCastDef, bitShiftDef, bitwiseAndDef, bitwiseNotDef, bitwiseOrDef, bitwiseXorDef,
	castDef, castLikeDef, ceilDef, celuDef, clipDef, cosDef, coshDef, cumProdDef, cumSumDef,
	divDef, eluDef, equalDef, erfDef, expDef, floorDef, geluDef, greaterDef, greaterOrEqualDef,
	hardSigmoidDef, hardSwish, hardmax, isInfDef, isNaNDef, leakyReluDef, lessDef, lessOrEqualDef, logDef, logSoftmax,
	maxDef, meanDef, minDef, mishDef, modDef, mulDef, negDef, notDef, orDef, powDef, preluDef, reciprocalDef,
	reduceL1Def, reduceL2Def, reduceLogSumDef, reduceLogSumExpDef, reduceMaxDef, reduceMeanDef, reduceMinDef,
	reduceProdDef, reduceSumDef, reduceSumSquareDef, reluDef, roundDef, seluDef, shrinkDef, sigmoidDef, signDef,
	sinDef, sinhDef, softmax, softplusDef, softsignDef, sqrtDef, subDef, sumDef, swigluDef, swishDef,
	tanDef, tanhDef, thresholdedReluDef, whereDef, xorDef,
}
