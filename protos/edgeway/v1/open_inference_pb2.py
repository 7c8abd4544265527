"""Generated from edgeway/v1/open_inference.proto by protos/generate.py: do not edit."""

from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message_factory import GetMessageClass

from edgeway.v1.pool import POOL
from edgeway.v1.service import Method

_FILE = POOL.AddSerializedFile(
    b'\n\x1fedgeway/v1/open_inference.proto\x12\tinference"\x13\n\x11ServerLiveRequest"(\n\x12ServerLiveResponse\x12\x12\n\x04live\x18'
    b'\x01 \x01(\x08R\x04live"\x14\n\x12ServerReadyRequest"+\n\x13ServerReadyResponse\x12\x14\n\x05ready\x18\x01 \x01(\x08R\x05ready"A\n\x11ModelReadyRequ'
    b'est\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x18\n\x07version\x18\x02 \x01(\tR\x07version"*\n\x12ModelReadyResponse\x12\x14\n\x05ready\x18\x01 \x01(\x08R\x05ready"\x17\n'
    b'\x15ServerMetadataRequest"f\n\x16ServerMetadataResponse\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x18\n\x07version\x18\x02 \x01(\tR\x07version\x12\x1e'
    b'\n\nextensions\x18\x03 \x03(\tR\nextensions"D\n\x14ModelMetadataRequest\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x18\n\x07version\x18\x02 \x01(\tR\x07ver'
    b'sion"\xe0\x03\n\x15ModelMetadataResponse\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x1a\n\x08versions\x18\x02 \x03(\tR\x08versions\x12\x1a\n\x08platform\x18\x03 \x01(\t'
    b'R\x08platform\x12G\n\x06inputs\x18\x04 \x03(\x0b2/.inference.ModelMetadataResponse.TensorMetadataR\x06inputs\x12I\n\x07outputs\x18\x05'
    b' \x03(\x0b2/.inference.ModelMetadataResponse.TensorMetadataR\x07outputs\x12P\n\nproperties\x18\x06 \x03(\x0b20.inference.M'
    b'odelMetadataResponse.PropertiesEntryR\nproperties\x1aV\n\x0eTensorMetadata\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x1a\n\x08dataty'
    b'pe\x18\x02 \x01(\tR\x08datatype\x12\x14\n\x05shape\x18\x03 \x03(\x03R\x05shape\x1a=\n\x0fPropertiesEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12\x14\n\x05value\x18\x02 \x01(\tR\x05va'
    b'lue:\x028\x01"\xd7\x01\n\x0eInferParameter\x12\x1f\n\nbool_param\x18\x01 \x01(\x08H\x00R\tboolParam\x12!\n\x0bint64_param\x18\x02 \x01(\x03H\x00R\nint64Param\x12#'
    b'\n\x0cstring_param\x18\x03 \x01(\tH\x00R\x0bstringParam\x12#\n\x0cdouble_param\x18\x04 \x01(\x01H\x00R\x0bdoubleParam\x12#\n\x0cuint64_param\x18\x05 \x01(\x04H\x00'
    b'R\x0buint64ParamB\x12\n\x10parameter_choice"\xc3\x02\n\x13InferTensorContents\x12#\n\rbool_contents\x18\x01 \x03(\x08R\x0cboolContents\x12!'
    b'\n\x0cint_contents\x18\x02 \x03(\x05R\x0bintContents\x12%\n\x0eint64_contents\x18\x03 \x03(\x03R\rint64Contents\x12#\n\ruint_contents\x18\x04 \x03(\rR'
    b"\x0cuintContents\x12'\n\x0fuint64_contents\x18\x05 \x03(\x04R\x0euint64Contents\x12#\n\rfp32_contents\x18\x06 \x03(\x02R\x0cfp32Contents\x12#\n\rf"
    b'p64_contents\x18\x07 \x03(\x01R\x0cfp64Contents\x12%\n\x0ebytes_contents\x18\x08 \x03(\x0cR\rbytesContents"\x9d\x08\n\x11ModelInferRequest\x12\x1d\n'
    b'\nmodel_name\x18\x01 \x01(\tR\tmodelName\x12#\n\rmodel_version\x18\x02 \x01(\tR\x0cmodelVersion\x12\x0e\n\x02id\x18\x03 \x01(\tR\x02id\x12L\n\nparameters\x18'
    b'\x04 \x03(\x0b2,.inference.ModelInferRequest.ParametersEntryR\nparameters\x12E\n\x06inputs\x18\x05 \x03(\x0b2-.inference.Mode'
    b'lInferRequest.InferInputTensorR\x06inputs\x12Q\n\x07outputs\x18\x06 \x03(\x0b27.inference.ModelInferRequest.InferReque'
    b'stedOutputTensorR\x07outputs\x12,\n\x12raw_input_contents\x18\x07 \x03(\x0cR\x10rawInputContents\x1a\xcd\x02\n\x10InferInputTensor\x12\x12\n\x04'
    b'name\x18\x01 \x01(\tR\x04name\x12\x1a\n\x08datatype\x18\x02 \x01(\tR\x08datatype\x12\x14\n\x05shape\x18\x03 \x03(\x03R\x05shape\x12]\n\nparameters\x18\x04 \x03(\x0b2=.inferen'
    b'ce.ModelInferRequest.InferInputTensor.ParametersEntryR\nparameters\x12:\n\x08contents\x18\x05 \x01(\x0b2\x1e.inference.'
    b'InferTensorContentsR\x08contents\x1aX\n\x0fParametersEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12/\n\x05value\x18\x02 \x01(\x0b2\x19.inference.In'
    b'ferParameterR\x05value:\x028\x01\x1a\xf3\x01\n\x1aInferRequestedOutputTensor\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12g\n\nparameters\x18\x02 \x03(\x0b2G'
    b'.inference.ModelInferRequest.InferRequestedOutputTensor.ParametersEntryR\nparameters\x1aX\n\x0fParameter'
    b'sEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12/\n\x05value\x18\x02 \x01(\x0b2\x19.inference.InferParameterR\x05value:\x028\x01\x1aX\n\x0fParametersEntry'
    b'\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12/\n\x05value\x18\x02 \x01(\x0b2\x19.inference.InferParameterR\x05value:\x028\x01"\xdf\x05\n\x12ModelInferResponse\x12\x1d'
    b'\n\nmodel_name\x18\x01 \x01(\tR\tmodelName\x12#\n\rmodel_version\x18\x02 \x01(\tR\x0cmodelVersion\x12\x0e\n\x02id\x18\x03 \x01(\tR\x02id\x12M\n\nparameters'
    b'\x18\x04 \x03(\x0b2-.inference.ModelInferResponse.ParametersEntryR\nparameters\x12I\n\x07outputs\x18\x05 \x03(\x0b2/.inference.M'
    b'odelInferResponse.InferOutputTensorR\x07outputs\x12.\n\x13raw_output_contents\x18\x06 \x03(\x0cR\x11rawOutputContents\x1a\xd0\x02\n'
    b'\x11InferOutputTensor\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x1a\n\x08datatype\x18\x02 \x01(\tR\x08datatype\x12\x14\n\x05shape\x18\x03 \x03(\x03R\x05shape\x12_\n\npara'
    b'meters\x18\x04 \x03(\x0b2?.inference.ModelInferResponse.InferOutputTensor.ParametersEntryR\nparameters\x12:\n\x08con'
    b'tents\x18\x05 \x01(\x0b2\x1e.inference.InferTensorContentsR\x08contents\x1aX\n\x0fParametersEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12/\n\x05va'
    b'lue\x18\x02 \x01(\x0b2\x19.inference.InferParameterR\x05value:\x028\x01\x1aX\n\x0fParametersEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12/\n\x05value\x18\x02 '
    b'\x01(\x0b2\x19.inference.InferParameterR\x05value:\x028\x01"\x85\x01\n\x18ModelStreamInferResponse\x12#\n\rerror_message\x18\x01 \x01(\tR\x0ce'
    b'rrorMessage\x12D\n\x0einfer_response\x18\x02 \x01(\x0b2\x1d.inference.ModelInferResponseR\rinferResponse"f\n\nModelInput\x12'
    b'\x12\n\x04name\x18\x01 \x01(\tR\x04name\x120\n\tdata_type\x18\x02 \x01(\x0e2\x13.inference.DataTypeR\x08dataType\x12\x12\n\x04dims\x18\x04 \x03(\x03R\x04dims"g\n\x0bMod'
    b'elOutput\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x120\n\tdata_type\x18\x02 \x01(\x0e2\x13.inference.DataTypeR\x08dataType\x12\x12\n\x04dims\x18\x03 \x03(\x03R\x04di'
    b'ms"\xb9\x01\n\x12ModelInstanceGroup\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x14\n\x05count\x18\x02 \x01(\x05R\x05count\x126\n\x04kind\x18\x04 \x01(\x0e2".inference.Mo'
    b'delInstanceGroup.KindR\x04kind"A\n\x04Kind\x12\r\n\tKIND_AUTO\x10\x00\x12\x0c\n\x08KIND_GPU\x10\x01\x12\x0c\n\x08KIND_CPU\x10\x02\x12\x0e\n\nKIND_MODEL\x10\x03"\xbe'
    b'\x02\n\x12ModelVersionPolicy\x12>\n\x06latest\x18\x01 \x01(\x0b2$.inference.ModelVersionPolicy.LatestH\x00R\x06latest\x125\n\x03all\x18\x02 \x01'
    b'(\x0b2!.inference.ModelVersionPolicy.AllH\x00R\x03all\x12D\n\x08specific\x18\x03 \x01(\x0b2&.inference.ModelVersionPolicy.Sp'
    b'ecificH\x00R\x08specific\x1a+\n\x06Latest\x12!\n\x0cnum_versions\x18\x01 \x01(\rR\x0bnumVersions\x1a\x05\n\x03All\x1a&\n\x08Specific\x12\x1a\n\x08versions\x18\x01'
    b' \x03(\x03R\x08versionsB\x0f\n\rpolicy_choice"6\n\x16ModelTransactionPolicy\x12\x1c\n\tdecoupled\x18\x01 \x01(\x08R\tdecoupled"3\n\x0eModel'
    b'Parameter\x12!\n\x0cstring_value\x18\x01 \x01(\tR\x0bstringValue"\x9b\x05\n\x0bModelConfig\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x1a\n\x08platform\x18\x02 \x01'
    b'(\tR\x08platform\x12D\n\x0eversion_policy\x18\x03 \x01(\x0b2\x1d.inference.ModelVersionPolicyR\rversionPolicy\x12$\n\x0emax_batch_'
    b'size\x18\x04 \x01(\x05R\x0cmaxBatchSize\x12+\n\x05input\x18\x05 \x03(\x0b2\x15.inference.ModelInputR\x05input\x12.\n\x06output\x18\x06 \x03(\x0b2\x16.inferenc'
    b'e.ModelOutputR\x06output\x12D\n\x0einstance_group\x18\x07 \x03(\x0b2\x1d.inference.ModelInstanceGroupR\rinstanceGroup\x124\n\x16d'
    b'efault_model_filename\x18\x08 \x01(\tR\x14defaultModelFilename\x12F\n\nparameters\x18\x0e \x03(\x0b2&.inference.ModelConfig.Pa'
    b'rametersEntryR\nparameters\x12\x18\n\x07backend\x18\x11 \x01(\tR\x07backend\x12[\n\x18model_transaction_policy\x18\x13 \x01(\x0b2!.inferenc'
    b'e.ModelTransactionPolicyR\x16modelTransactionPolicy\x1aX\n\x0fParametersEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12/\n\x05value\x18\x02'
    b' \x01(\x0b2\x19.inference.ModelParameterR\x05value:\x028\x01"B\n\x12ModelConfigRequest\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x18\n\x07version\x18'
    b'\x02 \x01(\tR\x07version"E\n\x13ModelConfigResponse\x12.\n\x06config\x18\x01 \x01(\x0b2\x16.inference.ModelConfigR\x06config"9\n\x11Statist'
    b'icDuration\x12\x14\n\x05count\x18\x01 \x01(\x04R\x05count\x12\x0e\n\x02ns\x18\x02 \x01(\x04R\x02ns"\xf2\x03\n\x0fInferStatistics\x126\n\x07success\x18\x01 \x01(\x0b2\x1c.inferenc'
    b'e.StatisticDurationR\x07success\x120\n\x04fail\x18\x02 \x01(\x0b2\x1c.inference.StatisticDurationR\x04fail\x122\n\x05queue\x18\x03 \x01(\x0b2\x1c.'
    b'inference.StatisticDurationR\x05queue\x12A\n\rcompute_input\x18\x04 \x01(\x0b2\x1c.inference.StatisticDurationR\x0ccompute'
    b'Input\x12A\n\rcompute_infer\x18\x05 \x01(\x0b2\x1c.inference.StatisticDurationR\x0ccomputeInfer\x12C\n\x0ecompute_output\x18\x06 \x01(\x0b'
    b'2\x1c.inference.StatisticDurationR\rcomputeOutput\x129\n\tcache_hit\x18\x07 \x01(\x0b2\x1c.inference.StatisticDurationR\x08'
    b'cacheHit\x12;\n\ncache_miss\x18\x08 \x01(\x0b2\x1c.inference.StatisticDurationR\tcacheMiss"\xfd\x01\n\x0fModelStatistics\x12\x12\n\x04nam'
    b"e\x18\x01 \x01(\tR\x04name\x12\x18\n\x07version\x18\x02 \x01(\tR\x07version\x12%\n\x0elast_inference\x18\x03 \x01(\x04R\rlastInference\x12'\n\x0finference_coun"
    b"t\x18\x04 \x01(\x04R\x0einferenceCount\x12'\n\x0fexecution_count\x18\x05 \x01(\x04R\x0eexecutionCount\x12C\n\x0finference_stats\x18\x06 \x01(\x0b2\x1a.infe"
    b'rence.InferStatisticsR\x0einferenceStats"F\n\x16ModelStatisticsRequest\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x18\n\x07version\x18\x02'
    b' \x01(\tR\x07version"V\n\x17ModelStatisticsResponse\x12;\n\x0bmodel_stats\x18\x01 \x03(\x0b2\x1a.inference.ModelStatisticsR\nmodel'
    b'Stats"W\n\x16RepositoryIndexRequest\x12\'\n\x0frepository_name\x18\x01 \x01(\tR\x0erepositoryName\x12\x14\n\x05ready\x18\x02 \x01(\x08R\x05ready"\xca'
    b'\x01\n\x17RepositoryIndexResponse\x12E\n\x06models\x18\x01 \x03(\x0b2-.inference.RepositoryIndexResponse.ModelIndexR\x06model'
    b's\x1ah\n\nModelIndex\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x18\n\x07version\x18\x02 \x01(\tR\x07version\x12\x14\n\x05state\x18\x03 \x01(\tR\x05state\x12\x16\n\x06reason\x18\x04 '
    b'\x01(\tR\x06reason"\xba\x01\n\x18ModelRepositoryParameter\x12\x1f\n\nbool_param\x18\x01 \x01(\x08H\x00R\tboolParam\x12!\n\x0bint64_param\x18\x02 \x01(\x03H\x00'
    b'R\nint64Param\x12#\n\x0cstring_param\x18\x03 \x01(\tH\x00R\x0bstringParam\x12!\n\x0bbytes_param\x18\x04 \x01(\x0cH\x00R\nbytesParamB\x12\n\x10paramete'
    b'r_choice"\x9f\x02\n\x1aRepositoryModelLoadRequest\x12\'\n\x0frepository_name\x18\x01 \x01(\tR\x0erepositoryName\x12\x1d\n\nmodel_name\x18\x02'
    b' \x01(\tR\tmodelName\x12U\n\nparameters\x18\x03 \x03(\x0b25.inference.RepositoryModelLoadRequest.ParametersEntryR\npara'
    b'meters\x1ab\n\x0fParametersEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x129\n\x05value\x18\x02 \x01(\x0b2#.inference.ModelRepositoryParameterR'
    b'\x05value:\x028\x01"Y\n\x1bRepositoryModelLoadResponse\x12\x1d\n\nmodel_name\x18\x01 \x01(\tR\tmodelName\x12\x1b\n\tis_loaded\x18\x02 \x01(\x08R\x08isL'
    b'oaded"\xa3\x02\n\x1cRepositoryModelUnloadRequest\x12\'\n\x0frepository_name\x18\x01 \x01(\tR\x0erepositoryName\x12\x1d\n\nmodel_name\x18\x02 '
    b'\x01(\tR\tmodelName\x12W\n\nparameters\x18\x03 \x03(\x0b27.inference.RepositoryModelUnloadRequest.ParametersEntryR\npar'
    b'ameters\x1ab\n\x0fParametersEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x129\n\x05value\x18\x02 \x01(\x0b2#.inference.ModelRepositoryParameter'
    b'R\x05value:\x028\x01"_\n\x1dRepositoryModelUnloadResponse\x12\x1d\n\nmodel_name\x18\x01 \x01(\tR\tmodelName\x12\x1f\n\x0bis_unloaded\x18\x02 \x01(\x08'
    b'R\nisUnloaded"5\n\x1fSystemSharedMemoryStatusRequest\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name"\xd7\x02\n SystemSharedMemoryStatus'
    b'Response\x12R\n\x07regions\x18\x01 \x03(\x0b28.inference.SystemSharedMemoryStatusResponse.RegionsEntryR\x07regions\x1ai\n\x0c'
    b'RegionStatus\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x10\n\x03key\x18\x02 \x01(\tR\x03key\x12\x16\n\x06offset\x18\x03 \x01(\x04R\x06offset\x12\x1b\n\tbyte_size\x18\x04 \x01(\x04R\x08b'
    b'yteSize\x1at\n\x0cRegionsEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12N\n\x05value\x18\x02 \x01(\x0b28.inference.SystemSharedMemoryStatusRes'
    b'ponse.RegionStatusR\x05value:\x028\x01"~\n!SystemSharedMemoryRegisterRequest\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x10\n\x03key\x18\x02 '
    b'\x01(\tR\x03key\x12\x16\n\x06offset\x18\x03 \x01(\x04R\x06offset\x12\x1b\n\tbyte_size\x18\x04 \x01(\x04R\x08byteSize"$\n"SystemSharedMemoryRegisterRespo'
    b'nse"9\n#SystemSharedMemoryUnregisterRequest\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name"&\n$SystemSharedMemoryUnregisterRe'
    b'sponse"3\n\x1dCudaSharedMemoryStatusRequest\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name"\xc4\x02\n\x1eCudaSharedMemoryStatusResponse\x12P'
    b'\n\x07regions\x18\x01 \x03(\x0b26.inference.CudaSharedMemoryStatusResponse.RegionsEntryR\x07regions\x1a\\\n\x0cRegionStatus'
    b'\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x1b\n\tdevice_id\x18\x02 \x01(\x04R\x08deviceId\x12\x1b\n\tbyte_size\x18\x03 \x01(\x04R\x08byteSize\x1ar\n\x0cRegionsEntry\x12\x10'
    b'\n\x03key\x18\x01 \x01(\tR\x03key\x12L\n\x05value\x18\x02 \x01(\x0b26.inference.CudaSharedMemoryStatusResponse.RegionStatusR\x05value:\x02'
    b'8\x01"\x8e\x01\n\x1fCudaSharedMemoryRegisterRequest\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x1d\n\nraw_handle\x18\x02 \x01(\x0cR\trawHandle\x12\x1b\n\tdev'
    b'ice_id\x18\x03 \x01(\x03R\x08deviceId\x12\x1b\n\tbyte_size\x18\x04 \x01(\x04R\x08byteSize""\n CudaSharedMemoryRegisterResponse"7\n!CudaS'
    b'haredMemoryUnregisterRequest\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name"$\n"CudaSharedMemoryUnregisterResponse"\x8e\x02\n\x13Trace'
    b'SettingRequest\x12H\n\x08settings\x18\x01 \x03(\x0b2,.inference.TraceSettingRequest.SettingsEntryR\x08settings\x12\x1d\n\nmode'
    b'l_name\x18\x02 \x01(\tR\tmodelName\x1a$\n\x0cSettingValue\x12\x14\n\x05value\x18\x01 \x03(\tR\x05value\x1ah\n\rSettingsEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key'
    b'\x12A\n\x05value\x18\x02 \x01(\x0b2+.inference.TraceSettingRequest.SettingValueR\x05value:\x028\x01"\xf2\x01\n\x14TraceSettingResponse'
    b'\x12I\n\x08settings\x18\x01 \x03(\x0b2-.inference.TraceSettingResponse.SettingsEntryR\x08settings\x1a$\n\x0cSettingValue\x12\x14\n\x05v'
    b'alue\x18\x01 \x03(\tR\x05value\x1ai\n\rSettingsEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12B\n\x05value\x18\x02 \x01(\x0b2,.inference.TraceSettingResp'
    b'onse.SettingValueR\x05value:\x028\x01"\xd6\x02\n\x12LogSettingsRequest\x12G\n\x08settings\x18\x01 \x03(\x0b2+.inference.LogSettingsReq'
    b'uest.SettingsEntryR\x08settings\x1a\x8d\x01\n\x0cSettingValue\x12\x1f\n\nbool_param\x18\x01 \x01(\x08H\x00R\tboolParam\x12#\n\x0cuint32_param\x18\x02'
    b' \x01(\rH\x00R\x0buint32Param\x12#\n\x0cstring_param\x18\x03 \x01(\tH\x00R\x0bstringParamB\x12\n\x10parameter_choice\x1ag\n\rSettingsEntry\x12\x10\n'
    b'\x03key\x18\x01 \x01(\tR\x03key\x12@\n\x05value\x18\x02 \x01(\x0b2*.inference.LogSettingsRequest.SettingValueR\x05value:\x028\x01"\xd9\x02\n\x13LogSet'
    b'tingsResponse\x12H\n\x08settings\x18\x01 \x03(\x0b2,.inference.LogSettingsResponse.SettingsEntryR\x08settings\x1a\x8d\x01\n\x0cSett'
    b'ingValue\x12\x1f\n\nbool_param\x18\x01 \x01(\x08H\x00R\tboolParam\x12#\n\x0cuint32_param\x18\x02 \x01(\rH\x00R\x0buint32Param\x12#\n\x0cstring_param\x18\x03'
    b' \x01(\tH\x00R\x0bstringParamB\x12\n\x10parameter_choice\x1ah\n\rSettingsEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12A\n\x05value\x18\x02 \x01(\x0b2+.infe'
    b'rence.LogSettingsResponse.SettingValueR\x05value:\x028\x01*\xfa\x01\n\x08DataType\x12\x10\n\x0cTYPE_INVALID\x10\x00\x12\r\n\tTYPE_BOOL\x10\x01\x12'
    b'\x0e\n\nTYPE_UINT8\x10\x02\x12\x0f\n\x0bTYPE_UINT16\x10\x03\x12\x0f\n\x0bTYPE_UINT32\x10\x04\x12\x0f\n\x0bTYPE_UINT64\x10\x05\x12\r\n\tTYPE_INT8\x10\x06\x12\x0e\n\nTYPE_INT16\x10'
    b'\x07\x12\x0e\n\nTYPE_INT32\x10\x08\x12\x0e\n\nTYPE_INT64\x10\t\x12\r\n\tTYPE_FP16\x10\n\x12\r\n\tTYPE_FP32\x10\x0b\x12\r\n\tTYPE_FP64\x10\x0c\x12\x0f\n\x0bTYPE_STRING\x10\r\x12'
    b'\r\n\tTYPE_BF16\x10\x0e2\x8e\x0f\n\x14GRPCInferenceService\x12I\n\nServerLive\x12\x1c.inference.ServerLiveRequest\x1a\x1d.inference.'
    b'ServerLiveResponse\x12L\n\x0bServerReady\x12\x1d.inference.ServerReadyRequest\x1a\x1e.inference.ServerReadyResponse'
    b'\x12I\n\nModelReady\x12\x1c.inference.ModelReadyRequest\x1a\x1d.inference.ModelReadyResponse\x12U\n\x0eServerMetadata\x12 .'
    b'inference.ServerMetadataRequest\x1a!.inference.ServerMetadataResponse\x12R\n\rModelMetadata\x12\x1f.inference.'
    b'ModelMetadataRequest\x1a .inference.ModelMetadataResponse\x12I\n\nModelInfer\x12\x1c.inference.ModelInferReque'
    b'st\x1a\x1d.inference.ModelInferResponse\x12Y\n\x10ModelStreamInfer\x12\x1c.inference.ModelInferRequest\x1a#.inference.'
    b'ModelStreamInferResponse(\x010\x01\x12L\n\x0bModelConfig\x12\x1d.inference.ModelConfigRequest\x1a\x1e.inference.ModelConf'
    b'igResponse\x12X\n\x0fModelStatistics\x12!.inference.ModelStatisticsRequest\x1a".inference.ModelStatisticsResp'
    b'onse\x12X\n\x0fRepositoryIndex\x12!.inference.RepositoryIndexRequest\x1a".inference.RepositoryIndexResponse\x12d'
    b'\n\x13RepositoryModelLoad\x12%.inference.RepositoryModelLoadRequest\x1a&.inference.RepositoryModelLoadResp'
    b"onse\x12j\n\x15RepositoryModelUnload\x12'.inference.RepositoryModelUnloadRequest\x1a(.inference.RepositoryMod"
    b'elUnloadResponse\x12s\n\x18SystemSharedMemoryStatus\x12*.inference.SystemSharedMemoryStatusRequest\x1a+.infer'
    b'ence.SystemSharedMemoryStatusResponse\x12y\n\x1aSystemSharedMemoryRegister\x12,.inference.SystemSharedMemo'
    b'ryRegisterRequest\x1a-.inference.SystemSharedMemoryRegisterResponse\x12\x7f\n\x1cSystemSharedMemoryUnregister'
    b'\x12..inference.SystemSharedMemoryUnregisterRequest\x1a/.inference.SystemSharedMemoryUnregisterRespons'
    b'e\x12m\n\x16CudaSharedMemoryStatus\x12(.inference.CudaSharedMemoryStatusRequest\x1a).inference.CudaSharedMemo'
    b'ryStatusResponse\x12s\n\x18CudaSharedMemoryRegister\x12*.inference.CudaSharedMemoryRegisterRequest\x1a+.infer'
    b'ence.CudaSharedMemoryRegisterResponse\x12y\n\x1aCudaSharedMemoryUnregister\x12,.inference.CudaSharedMemory'
    b'UnregisterRequest\x1a-.inference.CudaSharedMemoryUnregisterResponse\x12O\n\x0cTraceSetting\x12\x1e.inference.Tra'
    b'ceSettingRequest\x1a\x1f.inference.TraceSettingResponse\x12L\n\x0bLogSettings\x12\x1d.inference.LogSettingsRequest\x1a'
    b'\x1e.inference.LogSettingsResponseb\x06proto3'
)
DESCRIPTOR = POOL.FindFileByName('edgeway/v1/open_inference.proto')

ServerLiveRequest = GetMessageClass(DESCRIPTOR.message_types_by_name['ServerLiveRequest'])
ServerLiveResponse = GetMessageClass(DESCRIPTOR.message_types_by_name['ServerLiveResponse'])
ServerReadyRequest = GetMessageClass(DESCRIPTOR.message_types_by_name['ServerReadyRequest'])
ServerReadyResponse = GetMessageClass(DESCRIPTOR.message_types_by_name['ServerReadyResponse'])
ModelReadyRequest = GetMessageClass(DESCRIPTOR.message_types_by_name['ModelReadyRequest'])
ModelReadyResponse = GetMessageClass(DESCRIPTOR.message_types_by_name['ModelReadyResponse'])
ServerMetadataRequest = GetMessageClass(DESCRIPTOR.message_types_by_name['ServerMetadataRequest'])
ServerMetadataResponse = GetMessageClass(DESCRIPTOR.message_types_by_name['ServerMetadataResponse'])
ModelMetadataRequest = GetMessageClass(DESCRIPTOR.message_types_by_name['ModelMetadataRequest'])
ModelMetadataResponse = GetMessageClass(DESCRIPTOR.message_types_by_name['ModelMetadataResponse'])
InferParameter = GetMessageClass(DESCRIPTOR.message_types_by_name['InferParameter'])
InferTensorContents = GetMessageClass(DESCRIPTOR.message_types_by_name['InferTensorContents'])
ModelInferRequest = GetMessageClass(DESCRIPTOR.message_types_by_name['ModelInferRequest'])
ModelInferResponse = GetMessageClass(DESCRIPTOR.message_types_by_name['ModelInferResponse'])
ModelStreamInferResponse = GetMessageClass(DESCRIPTOR.message_types_by_name['ModelStreamInferResponse'])
ModelInput = GetMessageClass(DESCRIPTOR.message_types_by_name['ModelInput'])
ModelOutput = GetMessageClass(DESCRIPTOR.message_types_by_name['ModelOutput'])
ModelInstanceGroup = GetMessageClass(DESCRIPTOR.message_types_by_name['ModelInstanceGroup'])
ModelVersionPolicy = GetMessageClass(DESCRIPTOR.message_types_by_name['ModelVersionPolicy'])
ModelTransactionPolicy = GetMessageClass(DESCRIPTOR.message_types_by_name['ModelTransactionPolicy'])
ModelParameter = GetMessageClass(DESCRIPTOR.message_types_by_name['ModelParameter'])
ModelConfig = GetMessageClass(DESCRIPTOR.message_types_by_name['ModelConfig'])
ModelConfigRequest = GetMessageClass(DESCRIPTOR.message_types_by_name['ModelConfigRequest'])
ModelConfigResponse = GetMessageClass(DESCRIPTOR.message_types_by_name['ModelConfigResponse'])
StatisticDuration = GetMessageClass(DESCRIPTOR.message_types_by_name['StatisticDuration'])
InferStatistics = GetMessageClass(DESCRIPTOR.message_types_by_name['InferStatistics'])
ModelStatistics = GetMessageClass(DESCRIPTOR.message_types_by_name['ModelStatistics'])
ModelStatisticsRequest = GetMessageClass(DESCRIPTOR.message_types_by_name['ModelStatisticsRequest'])
ModelStatisticsResponse = GetMessageClass(DESCRIPTOR.message_types_by_name['ModelStatisticsResponse'])
RepositoryIndexRequest = GetMessageClass(DESCRIPTOR.message_types_by_name['RepositoryIndexRequest'])
RepositoryIndexResponse = GetMessageClass(DESCRIPTOR.message_types_by_name['RepositoryIndexResponse'])
ModelRepositoryParameter = GetMessageClass(DESCRIPTOR.message_types_by_name['ModelRepositoryParameter'])
RepositoryModelLoadRequest = GetMessageClass(DESCRIPTOR.message_types_by_name['RepositoryModelLoadRequest'])
RepositoryModelLoadResponse = GetMessageClass(DESCRIPTOR.message_types_by_name['RepositoryModelLoadResponse'])
RepositoryModelUnloadRequest = GetMessageClass(DESCRIPTOR.message_types_by_name['RepositoryModelUnloadRequest'])
RepositoryModelUnloadResponse = GetMessageClass(DESCRIPTOR.message_types_by_name['RepositoryModelUnloadResponse'])
SystemSharedMemoryStatusRequest = GetMessageClass(DESCRIPTOR.message_types_by_name['SystemSharedMemoryStatusRequest'])
SystemSharedMemoryStatusResponse = GetMessageClass(DESCRIPTOR.message_types_by_name['SystemSharedMemoryStatusResponse'])
SystemSharedMemoryRegisterRequest = GetMessageClass(DESCRIPTOR.message_types_by_name['SystemSharedMemoryRegisterRequest'])
SystemSharedMemoryRegisterResponse = GetMessageClass(DESCRIPTOR.message_types_by_name['SystemSharedMemoryRegisterResponse'])
SystemSharedMemoryUnregisterRequest = GetMessageClass(DESCRIPTOR.message_types_by_name['SystemSharedMemoryUnregisterRequest'])
SystemSharedMemoryUnregisterResponse = GetMessageClass(DESCRIPTOR.message_types_by_name['SystemSharedMemoryUnregisterResponse'])
CudaSharedMemoryStatusRequest = GetMessageClass(DESCRIPTOR.message_types_by_name['CudaSharedMemoryStatusRequest'])
CudaSharedMemoryStatusResponse = GetMessageClass(DESCRIPTOR.message_types_by_name['CudaSharedMemoryStatusResponse'])
CudaSharedMemoryRegisterRequest = GetMessageClass(DESCRIPTOR.message_types_by_name['CudaSharedMemoryRegisterRequest'])
CudaSharedMemoryRegisterResponse = GetMessageClass(DESCRIPTOR.message_types_by_name['CudaSharedMemoryRegisterResponse'])
CudaSharedMemoryUnregisterRequest = GetMessageClass(DESCRIPTOR.message_types_by_name['CudaSharedMemoryUnregisterRequest'])
CudaSharedMemoryUnregisterResponse = GetMessageClass(DESCRIPTOR.message_types_by_name['CudaSharedMemoryUnregisterResponse'])
TraceSettingRequest = GetMessageClass(DESCRIPTOR.message_types_by_name['TraceSettingRequest'])
TraceSettingResponse = GetMessageClass(DESCRIPTOR.message_types_by_name['TraceSettingResponse'])
LogSettingsRequest = GetMessageClass(DESCRIPTOR.message_types_by_name['LogSettingsRequest'])
LogSettingsResponse = GetMessageClass(DESCRIPTOR.message_types_by_name['LogSettingsResponse'])
DataType = EnumTypeWrapper(DESCRIPTOR.enum_types_by_name['DataType'])
TYPE_INVALID = 0
TYPE_BOOL = 1
TYPE_UINT8 = 2
TYPE_UINT16 = 3
TYPE_UINT32 = 4
TYPE_UINT64 = 5
TYPE_INT8 = 6
TYPE_INT16 = 7
TYPE_INT32 = 8
TYPE_INT64 = 9
TYPE_FP16 = 10
TYPE_FP32 = 11
TYPE_FP64 = 12
TYPE_STRING = 13
TYPE_BF16 = 14

SERVICES = {
    'inference.GRPCInferenceService': {
        'ServerLive': Method('/inference.GRPCInferenceService/ServerLive', ServerLiveRequest, ServerLiveResponse, False, False),
        'ServerReady': Method('/inference.GRPCInferenceService/ServerReady', ServerReadyRequest, ServerReadyResponse, False, False),
        'ModelReady': Method('/inference.GRPCInferenceService/ModelReady', ModelReadyRequest, ModelReadyResponse, False, False),
        'ServerMetadata': Method('/inference.GRPCInferenceService/ServerMetadata', ServerMetadataRequest, ServerMetadataResponse, False, False),
        'ModelMetadata': Method('/inference.GRPCInferenceService/ModelMetadata', ModelMetadataRequest, ModelMetadataResponse, False, False),
        'ModelInfer': Method('/inference.GRPCInferenceService/ModelInfer', ModelInferRequest, ModelInferResponse, False, False),
        'ModelStreamInfer': Method('/inference.GRPCInferenceService/ModelStreamInfer', ModelInferRequest, ModelStreamInferResponse, True, True),
        'ModelConfig': Method('/inference.GRPCInferenceService/ModelConfig', ModelConfigRequest, ModelConfigResponse, False, False),
        'ModelStatistics': Method('/inference.GRPCInferenceService/ModelStatistics', ModelStatisticsRequest, ModelStatisticsResponse, False, False),
        'RepositoryIndex': Method('/inference.GRPCInferenceService/RepositoryIndex', RepositoryIndexRequest, RepositoryIndexResponse, False, False),
        'RepositoryModelLoad': Method('/inference.GRPCInferenceService/RepositoryModelLoad', RepositoryModelLoadRequest, RepositoryModelLoadResponse, False, False),
        'RepositoryModelUnload': Method('/inference.GRPCInferenceService/RepositoryModelUnload', RepositoryModelUnloadRequest, RepositoryModelUnloadResponse, False, False),
        'SystemSharedMemoryStatus': Method('/inference.GRPCInferenceService/SystemSharedMemoryStatus', SystemSharedMemoryStatusRequest, SystemSharedMemoryStatusResponse, False, False),
        'SystemSharedMemoryRegister': Method('/inference.GRPCInferenceService/SystemSharedMemoryRegister', SystemSharedMemoryRegisterRequest, SystemSharedMemoryRegisterResponse, False, False),
        'SystemSharedMemoryUnregister': Method('/inference.GRPCInferenceService/SystemSharedMemoryUnregister', SystemSharedMemoryUnregisterRequest, SystemSharedMemoryUnregisterResponse, False, False),
        'CudaSharedMemoryStatus': Method('/inference.GRPCInferenceService/CudaSharedMemoryStatus', CudaSharedMemoryStatusRequest, CudaSharedMemoryStatusResponse, False, False),
        'CudaSharedMemoryRegister': Method('/inference.GRPCInferenceService/CudaSharedMemoryRegister', CudaSharedMemoryRegisterRequest, CudaSharedMemoryRegisterResponse, False, False),
        'CudaSharedMemoryUnregister': Method('/inference.GRPCInferenceService/CudaSharedMemoryUnregister', CudaSharedMemoryUnregisterRequest, CudaSharedMemoryUnregisterResponse, False, False),
        'TraceSetting': Method('/inference.GRPCInferenceService/TraceSetting', TraceSettingRequest, TraceSettingResponse, False, False),
        'LogSettings': Method('/inference.GRPCInferenceService/LogSettings', LogSettingsRequest, LogSettingsResponse, False, False),
    },
}
